"""The engines that can be measured."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

OURS = "vintern"


@dataclass(frozen=True)
class Engine:
    """A peer. ``name`` is that of its adapter and of its file of requirements.

    ``borrows`` names the engine in whose virtual environment this one finds PyTorch, which it needs for the conversion
    alone: its wheel for Linux is of several gigabytes. ``converts`` tells whether there is anything to convert.
    """

    name: str
    title: str
    borrows: str | None = None
    converts: bool = True


PEERS = {
    engine.name: engine
    for engine in (
        Engine("transformers", "transformers", converts=False),
        Engine("llama_cpp", "llama.cpp"),
        Engine("openvino", "OpenVINO GenAI", borrows="transformers"),
        Engine("onnxruntime_genai", "ONNX Runtime GenAI", borrows="transformers"),
    )
}
NAMES = {OURS: OURS} | {name: engine.title for name, engine in PEERS.items()}


def title(name: str, found: dict[str, Any]) -> str:
    """An engine and the precision of the language model it was measured with."""
    return f"{NAMES[name]}, {found['precision']}"


def environments_for(names: list[str]) -> list[Engine]:
    """The peers among ``names`` and those they borrow from, lenders first."""
    wanted = [PEERS[name] for name in names if name in PEERS]
    lenders = [PEERS[engine.borrows] for engine in wanted if engine.borrows]
    return list(dict.fromkeys([*lenders, *wanted]))
