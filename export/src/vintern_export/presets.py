"""Presets a checkpoint ships: settings of a call under a name, from ``vintern_presets.json``."""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.fields import Fields, read_json_object

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

PRESETS_NAME = "vintern_presets.json"
BUILT_IN = ("describe", "text", "benchmark")
"""Presets the runtime has of its own."""
DEFAULT_KEYS = {"default_with_image": "with_image", "default_text": "text"}
"""Keys of the file and of the manifest."""
NAME = re.compile(r"[a-z0-9_-]+")
MAX_COUNT = 2**32 - 1


@dataclass(frozen=True)
class Presets:
    """The presets of a checkpoint.

    Attributes:
        presets: name -> settings, as in the file.
        defaults: ``with_image`` and ``text`` -> name, where the file says so.
    """

    presets: dict[str, dict[str, Any]] = field(default_factory=dict)
    defaults: dict[str, str] = field(default_factory=dict)

    def manifest_entries(self) -> dict[str, Any]:
        """The keys of the manifest; none when there is nothing to say."""
        entries = {"presets": self.presets, "default_presets": self.defaults}
        return {key: value for key, value in entries.items() if value}


@dataclass(frozen=True)
class Rule:
    """Which values a setting may have, as a test and in words."""

    accepts: Callable[[object], bool]
    supported: str


def integer(minimum: int, maximum: int) -> Rule:
    """An integer of a range."""
    return Rule(
        lambda value: isinstance(value, int) and not isinstance(value, bool) and minimum <= value <= maximum,
        f"an integer from {minimum} to {maximum}",
    )


def number(minimum: float, maximum: float) -> Rule:
    """A number of a range."""
    return Rule(
        lambda value: isinstance(value, int | float) and not isinstance(value, bool) and minimum <= value <= maximum,
        f"a number from {minimum:g} to {maximum:g}",
    )


def is_line(value: object) -> bool:
    """Whether a value is text that a terminal can print on one line: no control characters, no halves of characters."""
    return (
        isinstance(value, str)
        and bool(value.strip())
        and not any(unicodedata.category(character) in ("Cc", "Cs") for character in value)
    )


RULES = {
    "description": Rule(is_line, "one line of text"),
    "min_tiles": integer(1, 256),
    "max_tiles": integer(1, 256),
    "use_thumbnail": Rule(lambda value: isinstance(value, bool), "true or false"),
    "num_beams": integer(1, 64),
    "repetition_penalty": number(0.01, 100),
    "length_penalty": number(-10, 10),
    "early_stopping": Rule(lambda value: isinstance(value, bool) or value == "never", 'true, false or "never"'),
    "no_repeat_ngram_size": integer(0, MAX_COUNT),
    "min_new_tokens": integer(0, MAX_COUNT),
    "max_new_tokens": integer(1, MAX_COUNT),
    "orientation": Rule(lambda value: value in ("auto", "ignore"), '"auto" or "ignore"'),
}
"""The settings of a preset. The runtime checks the same ranges when it opens a package."""


def read_presets(folder: Path, tiling: dict[str, Any]) -> Presets:
    """Reads the presets of a checkpoint folder; there are none without the file.

    Args:
        folder: checkpoint folder.
        tiling: the package's tiling, which holds where a preset states none.

    Raises:
        UnsupportedCheckpointError: names the first field that cannot be used.
    """
    path = folder / PRESETS_NAME
    if not path.is_file():
        return Presets()
    fields = Fields(read_json_object(path), PRESETS_NAME)
    refuse_unknown(fields, ("presets", *DEFAULT_KEYS))
    presets = section(fields, "presets") if "presets" in fields else Fields({}, fields.name("presets"))
    for name in presets.values:
        if not NAME.fullmatch(name):
            raise UnsupportedCheckpointError(
                presets.path, f"the name {name!r}", "names of lower-case letters, digits, - and _"
            )
        check_preset(section(presets, name), tiling)
    defaults = {DEFAULT_KEYS[key]: default_name(fields, key) for key in DEFAULT_KEYS if key in fields}
    return Presets(presets.values, defaults)


def check_preset(preset: Fields, tiling: dict[str, Any]) -> None:
    """Refuses a preset with a setting that the runtime could not use."""
    refuse_unknown(preset, tuple(RULES))
    for key, value in preset.values.items():
        if not RULES[key].accepts(value):
            raise preset.refuse(key, RULES[key].supported)
    max_tiles = preset.values.get("max_tiles", tiling["max_tiles"])
    if preset.values.get("min_tiles", 1) > max_tiles:
        raise preset.refuse("min_tiles", f"at most max_tiles = {max_tiles}")


def default_name(fields: Fields, key: str) -> str:
    """The preset that a default names."""
    own = fields.values.get("presets", {})
    known = (*own, *(name for name in BUILT_IN if name not in own))
    name = fields.values[key]
    if not isinstance(name, str) or name not in known:
        raise fields.refuse(key, f"the name of a preset: {', '.join(known)}")
    return name


def section(fields: Fields, key: str) -> Fields:
    """A nested object. Null is none here: a preset that says nothing is written ``{}``."""
    if fields.values[key] is None:
        raise fields.refuse(key, "a JSON object")
    return fields.section(key)


def refuse_unknown(fields: Fields, known: tuple[str, ...]) -> None:
    """Refuses a key that nothing would read."""
    for key in fields.values:
        if key not in known:
            raise fields.refuse(key, f"the keys {', '.join(known)}")
