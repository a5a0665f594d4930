"""Finds a checkpoint: a folder, or a repository on the Hugging Face hub."""

from __future__ import annotations

import re
from pathlib import Path

from vintern_export.errors import EnvironmentFailureError, UsageError

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
PATTERNS = ["*.json", "*.safetensors", "*.txt", "conversation.py"]
"""What is fetched: configuration, tokenizer, weights, and the file the system message is read from."""


def resolve_checkpoint(argument: str) -> tuple[Path, str]:
    """The local folder of a checkpoint and the name the manifest gives it.

    Raises:
        UsageError: neither a folder nor the form of a hub name, or no such repository.
        EnvironmentFailureError: the hub cannot be reached.
    """
    folder = Path(argument)
    if folder.is_dir():
        return folder, folder.resolve().name
    if folder.exists():
        raise UsageError(f"{argument} is a file", "Give the folder that holds config.json.")
    if not HUB_NAME.fullmatch(argument):
        raise UsageError(f"no folder {argument}, and not a hub name of the form organisation/name")
    return download(argument), argument


def download(repository: str) -> Path:
    """Fetches a repository's files into the hub cache and returns the folder."""
    from huggingface_hub import snapshot_download  # noqa: PLC0415 - slow to import, needed for hub names only
    from huggingface_hub.errors import (  # noqa: PLC0415
        GatedRepoError,
        RepositoryNotFoundError,
    )

    try:
        return Path(snapshot_download(repository, allow_patterns=PATTERNS))
    except GatedRepoError as error:
        raise UsageError(
            f"{repository} is gated", "Accept its terms on the hub and log in with `hf auth login`."
        ) from error
    except RepositoryNotFoundError as error:
        raise UsageError(f"no folder and no hub repository named {repository}") from error
    except Exception as error:  # each version of the client has transport errors of its own library
        raise EnvironmentFailureError(
            f"cannot download {repository}: {error or type(error).__name__}",
            "Check the connection, or give a local folder.",
        ) from error
