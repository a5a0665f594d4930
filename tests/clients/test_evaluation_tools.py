"""Requests as evaluation tools write them, over plain HTTP."""

from __future__ import annotations

import io
import json
import urllib.request
from typing import TYPE_CHECKING, Any

from PIL import Image

from conftest import KEY, RECEIPT, data_url, receipt

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

TOTAL = "Tổng cộng là bao nhiêu?"


def post(url: str, request: dict[str, Any]) -> dict[str, Any]:
    headers = {"content-type": "application/json", "authorization": f"Bearer {KEY}"}
    with urllib.request.urlopen(urllib.request.Request(url, json.dumps(request).encode(), headers)) as response:
        answer: dict[str, Any] = json.load(response)
        return answer


def test_a_jpeg_with_low_detail_keeps_its_tiles(
    address: str, chat: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    """As VLMEvalKit: the full URL, images encoded again as JPEG, detail low, and settings of the engine."""
    file = tmp_path / "receipt.jpg"
    with Image.open(RECEIPT) as image:
        buffer = io.BytesIO()
        image.convert("RGB").save(buffer, "JPEG")
    file.write_bytes(buffer.getvalue())
    picture = {"url": data_url(buffer.getvalue(), "jpeg"), "detail": "low"}
    content = [{"type": "image_url", "image_url": picture}, {"type": "text", "text": TOTAL}]
    request = {
        "model": "vintern-tiny",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 64,
        "n": 1,
        "temperature": 0,
        "repetition_penalty": 1.0,
        "num_beams": 3,
    }
    # Beams and a temperature of 0 are no conflict: both search.
    answer = post(f"{address}/chat/completions", request)
    expected = chat(TOTAL, "--num-beams", "3", "--repetition-penalty", "1", "--max-new-tokens", "64", image=file)
    assert answer["choices"][0]["message"]["content"] == expected["text"]
    assert answer["usage"]["prompt_tokens_details"]["image_tiles"] == expected["usage"]["tiles"]


def test_usage_is_always_there(address: str, chat: Callable[..., dict[str, Any]]) -> None:
    """As lmms-eval: text before the image, greedy, usage read off the answer."""
    content = [{"type": "text", "text": TOTAL}, receipt()]
    request = {
        "model": "vintern-tiny",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": 64,
        "temperature": 0,
        "top_p": 1.0,
        "seed": 1234,
    }
    answer = post(f"{address}/chat/completions", request)
    expected = chat(f"{TOTAL}\n<image>", "--temperature", "0", "--max-new-tokens", "64")
    assert answer["choices"][0]["message"]["content"] == expected["text"]
    assert answer["usage"]["prompt_tokens"] == expected["usage"]["prompt_tokens"]
    assert answer["usage"]["completion_tokens"] == expected["usage"]["completion_tokens"]
