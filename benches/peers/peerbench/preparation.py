"""What must lie on disk before anything is measured; what is there from an earlier run is kept."""

from __future__ import annotations

import itertools
import shutil
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from peerbench.engines import PEERS
from peerbench.environments import Environments, adapter_environment
from peerbench.process import run, say
from peerbench.split import image_size, read_json, split, tokens_of_a_tile
from peerbench.task import Task

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from peerbench.settings import Settings


@contextmanager
def unfinished(folder: Path) -> Iterator[Path | None]:
    """A folder to fill, which gets its name when it is full; None if it is full already."""
    if folder.exists():
        yield None
        return
    partial = folder.with_name(f"{folder.name}.part")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    yield partial
    partial.rename(folder)


def make_checkpoint(settings: Settings) -> None:
    """The random checkpoint and our package of it, unless they were given or are there."""
    log = settings.logs / "vintern.log"
    if not settings.checkpoint.exists():
        say(f"vintern: a random checkpoint of {settings.shape}")
        run([settings.exporter, "synth", settings.shape, settings.checkpoint], log)
    if not settings.package.exists():
        say("vintern: exporting to int4")
        run([settings.exporter, settings.checkpoint, settings.package, "--precision", "int4"], log)


def make_parts(settings: Settings) -> None:
    """The language model and the vision part apart."""
    with unfinished(settings.work / "parts") as folder:
        if folder:
            say("splitting the checkpoint")
            for part in ("language", "vision"):
                (folder / part).mkdir()
            tokenizer = settings.package / "tokenizer.json"
            split(settings.checkpoint, tokenizer, folder / "language", folder / "vision")


def plain_tokens(tokenizer: dict[str, Any]) -> int:
    """How many ids from 0 on have a token that was not added to the vocabulary."""
    added = {token["id"] for token in tokenizer["added_tokens"]}
    known = set(tokenizer["model"]["vocab"].values()) - added
    return next(index for index in itertools.count() if index not in known)


def task_of(settings: Settings) -> Task:
    """The workload; ``converted`` is left to the engines."""
    config = read_json(settings.checkpoint / "config.json")
    tokenizer = read_json(settings.package / "tokenizer.json")
    tiles = settings.tiles + 1 if settings.tiles > 1 else 1
    parts = settings.work / "parts"
    return Task(
        language=str(parts / "language"),
        vision=str(parts / "vision"),
        converted="",
        image_size=image_size(config),
        tiles=tiles,
        image_tokens=tiles * tokens_of_a_tile(config),
        text_tokens=settings.text_tokens,
        plain_tokens=plain_tokens(tokenizer),
        new_tokens=settings.new_tokens,
        num_beams=settings.num_beams,
        repetition_penalty=settings.repetition_penalty,
        threads=settings.threads,
    )


def convert(settings: Settings, environments: Environments, task: Task, name: str) -> Path:
    """Converts the checkpoint for an engine; returns where."""
    folder = settings.work / "converted" / name
    if not PEERS[name].converts:
        return folder
    with unfinished(folder) as partial:
        if partial:
            say(f"{name}: converting")
            file = settings.work / "tasks" / f"{name}.json"
            replace(task, converted=str(partial)).write(file)
            log = settings.logs / f"{name}.log"
            run(environments.adapter(name, "prepare", file), log, adapter_environment(settings.threads))
    return folder
