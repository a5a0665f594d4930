"""Typed access to the keys of a JSON configuration, with errors that name the full key."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from vintern_export.errors import UnsupportedCheckpointError

if TYPE_CHECKING:
    from pathlib import Path


class Fields:
    """A JSON object and its path in the file, such as ``config.json llm_config``.

    A key that is missing or null takes the default; a value of the wrong type is refused by its name.
    """

    def __init__(self, values: dict[str, Any], path: str) -> None:
        self.values = values
        self.path = path

    def __contains__(self, key: str) -> bool:
        return key in self.values

    def name(self, key: str) -> str:
        """The key with its path, for messages."""
        return f"{self.path} {key}" if " " not in self.path else f"{self.path}.{key}"

    def refuse(self, key: str, supported: str, hint: str | None = None) -> UnsupportedCheckpointError:
        """The error that says this key's value is not supported."""
        found = json.dumps(self.values[key], ensure_ascii=False) if key in self.values else "nothing"
        return UnsupportedCheckpointError(self.name(key), found, supported, hint)

    def integer(self, key: str, default: int, minimum: int = 1) -> int:
        """An integer of at least ``minimum``."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < minimum:
            raise self.refuse(key, f"an integer of at least {minimum}")
        return value

    def number(self, key: str, default: float) -> float:
        """A positive number."""
        value = self.values.get(key)
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < float("inf"):
            raise self.refuse(key, "a positive number")
        return float(value)

    def boolean(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.refuse(key, "true or false")
        return value

    def text(self, key: str, default: str | None) -> str | None:
        """A string."""
        value = self.values.get(key)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.refuse(key, "a string")
        return value

    def side(self, key: str, default: int) -> int:
        """The side of a square, written as one integer or as two equal ones."""
        value = self.values.get(key)
        if isinstance(value, list) and value and all(v == value[0] for v in value):
            value = value[0]
        if value is None:
            return default
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise self.refuse(key, "one positive integer, or two equal ones")
        return value

    def class_name(self, default: str) -> str:
        """The first of ``architectures``."""
        value = self.values.get("architectures") or [default]
        if not isinstance(value, list) or not isinstance(value[0], str):
            raise self.refuse("architectures", "a list of class names")
        return value[0]

    def section(self, key: str) -> Fields:
        """A nested object; empty when missing."""
        value = self.values.get(key)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.refuse(key, "a JSON object")
        return Fields(value, self.name(key))


def read_json_object(path: Path) -> dict[str, Any]:
    """Reads a JSON file that holds an object.

    Raises:
        UnsupportedCheckpointError: the file is missing, not JSON, or not an object.
    """
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnsupportedCheckpointError(path.name, f"no such file in {path.parent}", "a checkpoint folder") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnsupportedCheckpointError(path.name, f"text that is not JSON ({error})", "a JSON object") from error
    if not isinstance(value, dict):
        raise UnsupportedCheckpointError(path.name, type(value).__name__, "a JSON object")
    return value
