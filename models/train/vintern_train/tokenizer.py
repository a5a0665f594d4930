"""The tokenizer: Qwen2's byte-level BPE with one token per character and a few for the syntax of JSON.

Merges build the characters from their UTF-8 bytes, and the keys of the extraction from characters. There are no word
pieces: the model learns what a character looks like once, not once per piece it occurs in.
"""

from __future__ import annotations

import functools
import json
from typing import TYPE_CHECKING

from tokenizers import AddedToken, Regex, Tokenizer, decoders, normalizers, pre_tokenizers
from tokenizers.models import BPE

from vintern_train.text import CHARACTERS

if TYPE_CHECKING:
    from pathlib import Path

SPECIAL_TOKENS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<img>", "</img>", "<IMG_CONTEXT>"),
    *("<quad>", "</quad>", "<ref>", "</ref>", "<box>", "</box>"),
)
PIECES = (
    '{"',
    '":',
    ' "',
    '",',
    '"},',
    ' {"',
    ' [{"',
    '"}],',
    "},",
    "}],",
    "shop",
    "date",
    "items",
    "name",
    "price",
    "total",
)
"""Strings of the extraction's JSON that are one token each."""
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer."""


@functools.cache
def byte_symbols() -> tuple[str, ...]:
    """The printable character that stands for each byte in byte-level BPE (GPT-2's table)."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    spare = iter(range(256, 512))
    return tuple(chr(byte) if byte in printable else chr(next(spare)) for byte in range(256))


def symbols(text: str) -> list[str]:
    """The byte symbols of a text."""
    return [byte_symbols()[byte] for byte in text.encode()]


@functools.cache
def vocabulary() -> tuple[dict[str, int], tuple[tuple[str, str], ...]]:
    """Token ids and merges, without the special tokens."""
    merges: dict[tuple[str, str], None] = {}
    for character in CHARACTERS:
        parts = symbols(character)
        for count in range(1, len(parts)):
            merges.setdefault(("".join(parts[:count]), parts[count]))
    for piece in PIECES:
        parts = symbols(piece)
        for count in range(1, len(parts)):
            merges.setdefault(("".join(parts[:count]), parts[count]))
    tokens = [*byte_symbols(), *dict.fromkeys(left + right for left, right in merges)]
    return {token: number for number, token in enumerate(tokens)}, tuple(merges)


@functools.cache
def special_ids() -> dict[str, int]:
    """Ids of the special tokens; they follow the vocabulary."""
    first = len(vocabulary()[0])
    return {token: first + number for number, token in enumerate(SPECIAL_TOKENS)}


def vocabulary_size() -> int:
    """Number of tokens."""
    return len(vocabulary()[0]) + len(SPECIAL_TOKENS)


@functools.cache
def tokenizer() -> Tokenizer:
    """The tokenizer, as it is exported."""
    ids, merges = vocabulary()
    made = Tokenizer(BPE(vocab=ids, merges=list(merges)))
    made.normalizer = normalizers.NFC()
    made.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PATTERN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    made.decoder = decoders.ByteLevel()
    made.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL_TOKENS])
    return made


def encode(text: str) -> tuple[list[int], list[tuple[int, int]]]:
    """Token ids of a text and the characters each stands for."""
    encoding = tokenizer().encode(text, add_special_tokens=False)
    return encoding.ids, encoding.offsets


def write_tokenizer(folder: Path) -> None:
    """Writes the tokenizer files of a checkpoint folder in the original layout."""
    ids, merges = vocabulary()
    (folder / "vocab.json").write_text(json.dumps(ids, ensure_ascii=False) + "\n", encoding="utf-8")
    lines = ["#version: 0.2", *(f"{left} {right}" for left, right in merges)]
    (folder / "merges.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")
    write_json(folder / "added_tokens.json", special_ids())
    special = {"eos_token": "<|im_end|>", "pad_token": "<|endoftext|>"}
    write_json(folder / "special_tokens_map.json", special | {"additional_special_tokens": list(SPECIAL_TOKENS)})
    decoder = {
        str(number): {
            "content": token,
            "lstrip": False,
            "normalized": False,
            "rstrip": False,
            "single_word": False,
            "special": True,
        }
        for token, number in special_ids().items()
    }
    settings = {
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": list(SPECIAL_TOKENS),
    }
    settings |= {"bos_token": None, "errors": "replace", "model_max_length": 2048, "tokenizer_class": "Qwen2Tokenizer"}
    write_json(folder / "tokenizer_config.json", settings | special)


def write_json(file: Path, content: object) -> None:
    """Writes indented JSON."""
    file.write_text(json.dumps(content, ensure_ascii=False, indent=2) + "\n", encoding="utf-8")
