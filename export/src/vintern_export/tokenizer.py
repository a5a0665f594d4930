"""The package's ``tokenizer.json``: the checkpoint's own, or one built from its vocabulary and merges."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tokenizers import Tokenizer

from vintern_export.added_tokens import TokenFiles
from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.fields import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer: digits one by one, at most one leading non-letter before a word."""


@dataclass(frozen=True)
class SpecialIds:
    """Token ids of the manifest."""

    eos: int
    pad: int
    image_start: int
    image_end: int
    image_context: int
    skipped_in_text: tuple[int, ...]


@dataclass(frozen=True)
class ExportedTokenizer:
    """The text of ``tokenizer.json`` and the ids looked up in it."""

    json_text: str
    ids: SpecialIds
    size: int


def export_tokenizer(folder: Path, embedding_rows: int, image_token_id: int | None) -> ExportedTokenizer:
    """Makes the tokenizer of a checkpoint folder.

    Args:
        folder: the checkpoint.
        embedding_rows: rows of the embedding table; no id may lie beyond.
        image_token_id: the configured id of ``<IMG_CONTEXT>``, where the layout has one.

    Raises:
        UnsupportedCheckpointError: files are missing, disagree, or do not hold a Qwen2 tokenizer.
    """
    files = TokenFiles(folder)
    source = folder / "tokenizer.json"
    text = complete_tokenizer_json(source, files) if source.is_file() else build_tokenizer_json(folder, files)
    text, tokenizer = with_declared_ids(text)
    ids = special_ids(tokenizer, files)
    highest = max(tokenizer.get_vocab(with_added_tokens=True).values())
    if highest >= embedding_rows:
        raise UnsupportedCheckpointError(
            "tokenizer", f"id {highest}", f"ids below vocab_size = {embedding_rows}, the rows of the embedding table"
        )
    if image_token_id is not None and image_token_id != ids.image_context:
        raise UnsupportedCheckpointError(
            "config.json image_token_id", str(image_token_id), f"{ids.image_context}, the id of <IMG_CONTEXT>"
        )
    return ExportedTokenizer(text, ids, highest + 1)


def load_tokenizer(text: str) -> Tokenizer:
    """Parses a ``tokenizer.json``."""
    try:
        return Tokenizer.from_str(text)
    except Exception as error:  # the binding raises bare Exception
        raise UnsupportedCheckpointError(
            "tokenizer.json", f"something that does not load ({error})", "a Qwen2 BPE"
        ) from error


def with_declared_ids(text: str) -> tuple[str, Tokenizer]:
    """A ``tokenizer.json`` that gives every added token its own id when loaded, and the tokenizer it is.

    The library numbers added tokens on from the size of the vocabulary, whatever the file says, unless the vocabulary
    has them: where the ids have gaps, the added tokens join it. No merge makes them, so encoding stays the same.
    """
    tokenizer = load_tokenizer(text)
    content = json.loads(text)
    added = {entry["content"]: entry["id"] for entry in content.get("added_tokens") or []}
    if all(tokenizer.token_to_id(token) == identifier for token, identifier in added.items()):
        return text, tokenizer
    vocabulary = content["model"]["vocab"] | added
    if len(set(vocabulary.values())) < len(vocabulary):
        raise UnsupportedCheckpointError("tokenizer.json added_tokens", "ids of other tokens", "one token an id")
    content["model"]["vocab"] = dict(sorted(vocabulary.items(), key=lambda item: int(item[1])))
    text = json.dumps(content, ensure_ascii=False, indent=2)
    return text, load_tokenizer(text)


def complete_tokenizer_json(path: Path, files: TokenFiles) -> str:
    """The checkpoint's ``tokenizer.json``, unchanged unless declared added tokens are missing from it."""
    tokenizer = read_json_object(path)
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE" or not isinstance(model.get("vocab"), dict):
        kind = model.get("type") if isinstance(model, dict) else None
        raise UnsupportedCheckpointError("tokenizer.json model.type", repr(kind), "BPE (the Qwen2 tokenizer)")
    added = tokenizer.get("added_tokens") or []
    try:
        present = {entry["content"]: entry["id"] for entry in added}
    except (KeyError, TypeError) as error:
        raise UnsupportedCheckpointError(
            "tokenizer.json added_tokens", f"an entry without {error}", "objects with id and content"
        ) from error
    ids = model["vocab"] | present
    by_id = {identifier: content for content, identifier in ids.items()}
    missing = []
    for content, entry in files.declared_tokens(ids).items():
        if ids.get(content, entry["id"]) != entry["id"]:
            raise UnsupportedCheckpointError(
                f"tokenizer.json {content}", str(ids[content]), f"{entry['id']}, as the files beside it say"
            )
        if by_id.get(entry["id"], content) != content:
            raise UnsupportedCheckpointError(
                f"tokenizer.json id {entry['id']}", by_id[entry["id"]], f"{content}, as the files beside it say"
            )
        if content not in present:
            missing.append(entry)
    if not missing:
        return path.read_text(encoding="utf-8")
    tokenizer["added_tokens"] = sorted([*added, *missing], key=lambda e: int(e["id"]))
    return json.dumps(tokenizer, ensure_ascii=False, indent=2)


def read_merges(path: Path) -> list[list[str]]:
    """The merges of ``merges.txt`` in rank order; a ``#version`` line may come first, lines may end in CR LF."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise UnsupportedCheckpointError(path.name, f"text that is not UTF-8 ({error})", "two tokens a line") from error
    if lines[0].startswith("#version"):
        del lines[0]
    merges = [line.split() for line in lines if line.strip()]
    for number, merge in enumerate(merges):
        if len(merge) != 2:
            raise UnsupportedCheckpointError(f"merges.txt merge {number}", repr(" ".join(merge)), "two tokens a line")
    return merges


def build_tokenizer_json(folder: Path, files: TokenFiles) -> str:
    """A ``tokenizer.json`` from ``vocab.json`` and ``merges.txt``: NFC, Qwen2's pre-tokenizer, byte-level BPE."""
    vocabulary_path, merges_path = folder / "vocab.json", folder / "merges.txt"
    if not vocabulary_path.is_file() or not merges_path.is_file():
        raise UnsupportedCheckpointError(
            "tokenizer", f"none in {folder}", "tokenizer.json, or vocab.json and merges.txt"
        )
    vocabulary = read_json_object(vocabulary_path)
    by_id = {identifier: content for content, identifier in vocabulary.items()}
    added = files.declared_tokens(vocabulary)
    for content, entry in added.items():
        if vocabulary.get(content, entry["id"]) != entry["id"] or by_id.get(entry["id"], content) != content:
            raise UnsupportedCheckpointError(
                f"vocab.json id {entry['id']}", repr(by_id.get(entry["id"])), f"{content}, or nothing, at this id"
            )
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated", "invert": False}
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": list(added.values()),
        "normalizer": {"type": "NFC"},
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, byte_level]},
        "post_processor": None,
        "decoder": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": "",
            "end_of_word_suffix": "",
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": dict(sorted(vocabulary.items(), key=lambda item: int(item[1]))),
            "merges": read_merges(merges_path),
        },
    }
    return json.dumps(tokenizer, ensure_ascii=False, indent=2)


def special_ids(tokenizer: Tokenizer, files: TokenFiles) -> SpecialIds:
    """Looks the special ids up by name. Without a padding token, the reference pads with the end of a message."""

    def required(content: str) -> int:
        identifier = tokenizer.token_to_id(content)
        if identifier is None:
            raise UnsupportedCheckpointError(
                f"tokenizer {content}", "nothing", "a vocabulary with <|im_end|>, <img>, </img> and <IMG_CONTEXT>"
            )
        return int(identifier)

    skipped = {identifier for c in files.special_contents if (identifier := tokenizer.token_to_id(c)) is not None}
    pad = tokenizer.token_to_id(files.named["pad_token"] or "<|endoftext|>")
    return SpecialIds(
        eos=required("<|im_end|>"),
        pad=required("<|im_end|>") if pad is None else int(pad),
        image_start=required("<img>"),
        image_end=required("</img>"),
        image_context=required("<IMG_CONTEXT>"),
        skipped_in_text=tuple(sorted(skipped)),
    )
