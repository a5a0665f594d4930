"""A server of the bundled model for the clients' tests."""

from __future__ import annotations

import base64
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

REPOSITORY = Path(__file__).parents[2]
PROGRAM = REPOSITORY / "target/release/vintern"
RECEIPT = REPOSITORY / "models/demo/receipt.png"
KEY = "a key of the tests"


@pytest.fixture(scope="session")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server's API is."""
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(f"{KEY}\n")
    command: list[str | Path] = [
        PROGRAM,
        "serve",
        "--model",
        REPOSITORY / "models/vintern-tiny",
        "--port",
        "0",
        "--api-key-file",
        keys,
    ]
    with subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True) as server:
        assert server.stderr is not None
        line = next(line for line in server.stderr if " at " in line)
        yield line.strip().split(" at ")[1]
        server.terminate()
        assert server.wait(60) == 0


@pytest.fixture(scope="session")
def chat() -> Callable[..., dict[str, Any]]:
    """What ``vintern chat`` says of an image, the receipt unless it is told."""

    def ask(question: str, *arguments: str, image: Path = RECEIPT) -> dict[str, Any]:
        command: list[str | Path] = [PROGRAM, "chat", "--json", "--model", "models/vintern-tiny", "--image", image]
        command += [*arguments, "--", question]
        output = subprocess.run(command, cwd=REPOSITORY, check=True, capture_output=True)
        answer: dict[str, Any] = json.loads(output.stdout)
        return answer

    return ask


def data_url(data: bytes, kind: str) -> str:
    """An image file as a URL."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def receipt() -> dict[str, Any]:
    """The receipt as a part of a message."""
    return {"type": "image_url", "image_url": {"url": data_url(RECEIPT.read_bytes(), "png")}}
