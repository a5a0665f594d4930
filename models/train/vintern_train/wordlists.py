"""Words and phrases the generator draws from, each split once and for all into a training and a held-out part.

The split is by a hash of the word, so it never depends on the order of a list or on a random state: a word of the
held-out part appears in no training image.
"""

from __future__ import annotations

import functools
import re
import tomllib
import unicodedata
import zlib
from pathlib import Path

VIETNAMESE_DICTIONARY = Path("/usr/share/hunspell/vi_VN.dic")
ENGLISH_DICTIONARY = Path("/usr/share/dict/american-english")
HELD_OUT_SHARE = 10
"""One word in this many is held out."""


def is_held_out(word: str) -> bool:
    """Whether a word, phrase or number belongs to the held-out part."""
    return zlib.crc32(word.casefold().encode()) % HELD_OUT_SHARE == 0


@functools.cache
def phrases(kind: str) -> tuple[str, ...]:
    """All phrases of a list of ``phrases.toml``."""
    lists = tomllib.loads((Path(__file__).parent / "phrases.toml").read_text(encoding="utf-8"))
    return tuple(unicodedata.normalize("NFC", phrase) for phrase in lists[kind])


def part_of(kind: str, *, held_out: bool) -> tuple[str, ...]:
    """The phrases of a list that belong to a part."""
    return tuple(phrase for phrase in phrases(kind) if is_held_out(phrase) == held_out)


@functools.cache
def vietnamese_syllables(*, held_out: bool) -> tuple[str, ...]:
    """Lower-case Vietnamese syllables of a part, in the order of the dictionary.

    Raises:
        FileNotFoundError: the Debian package hunspell-vi is not installed.
    """
    lines = read_dictionary(VIETNAMESE_DICTIONARY, "hunspell-vi").splitlines()[1:]
    words = (unicodedata.normalize("NFC", line.split("/")[0].strip()) for line in lines)
    return tuple(word for word in words if word.isalpha() and word.islower() and is_held_out(word) == held_out)


@functools.cache
def english_words(*, held_out: bool) -> tuple[str, ...]:
    """Lower-case English words of 2 to 9 letters of a part.

    Raises:
        FileNotFoundError: the Debian package wamerican is not installed.
    """
    words = read_dictionary(ENGLISH_DICTIONARY, "wamerican").split()
    return tuple(w for w in words if re.fullmatch("[a-z]{2,9}", w) and is_held_out(w) == held_out)


def read_dictionary(path: Path, package: str) -> str:
    """A dictionary file, or an error that names the Debian package it comes in."""
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing\nhint: install the Debian package {package} (see fonts.txt)")
    return path.read_text(encoding="utf-8")
