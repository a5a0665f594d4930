"""The package's ``tokenizer.json``: the checkpoint's own, or one built from its vocabulary and merges."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tokenizers import Tokenizer

from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.fields import read_json_object

if TYPE_CHECKING:
    from pathlib import Path

QWEN2_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""Qwen2's pre-tokenizer: digits one by one, at most one leading non-letter before a word."""
NAMED_SPECIAL_TOKENS = {
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "bos_token": None,
    "sep_token": None,
    "cls_token": None,
    "mask_token": None,
}
"""Keys of ``tokenizer_config.json`` that name one special token, with the defaults of ``Qwen2Tokenizer``."""
LISTED_SPECIAL_TOKENS = ("additional_special_tokens", "extra_special_tokens")

AddedTokens = dict[str, dict[str, Any]]
"""Content of an added token -> its entry in ``tokenizer.json``."""


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
    config = optional_object(folder / "tokenizer_config.json")
    added = declared_tokens(folder, config)
    source = folder / "tokenizer.json"
    text = complete_tokenizer_json(source, added) if source.is_file() else build_tokenizer_json(folder, added)
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the binding raises bare Exception
        raise UnsupportedCheckpointError(
            "tokenizer.json", f"something that does not load ({error})", "a Qwen2 BPE"
        ) from error
    ids = special_ids(tokenizer, folder, config)
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


def optional_object(path: Path) -> dict[str, Any]:
    """A JSON object, empty where the file is absent."""
    return read_json_object(path) if path.is_file() else {}


def token_content(value: object) -> str | None:
    """The text of a token written as a string or as an object with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def special_contents(folder: Path, config: dict[str, Any]) -> list[str]:
    """Tokens the reference (slow) tokenizer drops with ``skip_special_tokens``.

    These are the named special tokens and the listed ones. Tokens that are merely flagged special in
    ``added_tokens_decoder`` stay in the text.
    """
    merged = optional_object(folder / "special_tokens_map.json") | config
    values = [token_content(merged.get(key, default)) for key, default in NAMED_SPECIAL_TOKENS.items()]
    for key in LISTED_SPECIAL_TOKENS:
        listed = merged.get(key) or []
        values += [token_content(v) for v in (listed.values() if isinstance(listed, dict) else listed)]
    return [value for value in dict.fromkeys(values) if value]


def declared_tokens(folder: Path, config: dict[str, Any]) -> AddedTokens:
    """Added tokens of ``tokenizer_config.json`` and ``added_tokens.json``, by content, in the order of their ids."""
    special = set(special_contents(folder, config))
    tokens: AddedTokens = {}
    for key, entry in (config.get("added_tokens_decoder") or {}).items():
        content = entry["content"]
        flags = {flag: bool(entry.get(flag)) for flag in ("single_word", "lstrip", "rstrip", "normalized", "special")}
        tokens[content] = {"id": int(key), "content": content, **flags}
    for content, identifier in optional_object(folder / "added_tokens.json").items():
        if content not in tokens:
            flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized"), False)
            tokens[content] = {"id": int(identifier), "content": content, **flags, "special": content in special}
        elif tokens[content]["id"] != identifier:
            raise UnsupportedCheckpointError(
                f"added_tokens.json {content}",
                str(identifier),
                f"{tokens[content]['id']}, as tokenizer_config.json says",
            )
    return dict(sorted(tokens.items(), key=lambda item: int(item[1]["id"])))


def complete_tokenizer_json(path: Path, added: AddedTokens) -> str:
    """The checkpoint's ``tokenizer.json``, unchanged unless declared added tokens are missing from it."""
    tokenizer = read_json_object(path)
    model = tokenizer.get("model")
    if not isinstance(model, dict) or model.get("type") != "BPE":
        kind = model.get("type") if isinstance(model, dict) else None
        raise UnsupportedCheckpointError("tokenizer.json model.type", repr(kind), "BPE (the Qwen2 tokenizer)")
    present = {entry["content"]: entry["id"] for entry in tokenizer.get("added_tokens") or []}
    by_id = {identifier: content for content, identifier in (model["vocab"] | present).items()}
    missing = []
    for content, entry in added.items():
        if content in present:
            if present[content] != entry["id"]:
                raise UnsupportedCheckpointError(
                    f"tokenizer.json {content}", str(present[content]), f"{entry['id']}, as tokenizer_config.json says"
                )
            continue
        if by_id.get(entry["id"], content) != content:
            raise UnsupportedCheckpointError(
                f"tokenizer.json id {entry['id']}", by_id[entry["id"]], f"{content}, as tokenizer_config.json says"
            )
        missing.append(entry)
    if not missing:
        return path.read_text(encoding="utf-8")
    tokenizer["added_tokens"] = sorted([*(tokenizer.get("added_tokens") or []), *missing], key=lambda e: int(e["id"]))
    return json.dumps(tokenizer, ensure_ascii=False, indent=2)


def build_tokenizer_json(folder: Path, added: AddedTokens) -> str:
    """A ``tokenizer.json`` from ``vocab.json`` and ``merges.txt``: NFC, Qwen2's pre-tokenizer, byte-level BPE."""
    vocabulary_path, merges_path = folder / "vocab.json", folder / "merges.txt"
    if not vocabulary_path.is_file() or not merges_path.is_file():
        raise UnsupportedCheckpointError(
            "tokenizer", f"none in {folder}", "tokenizer.json, or vocab.json and merges.txt"
        )
    vocabulary = read_json_object(vocabulary_path)
    lines = merges_path.read_text(encoding="utf-8").split("\n")
    merges = [line.split(" ") for line in lines if line and not line.startswith("#version")]
    for number, merge in enumerate(merges):
        if len(merge) != 2:
            raise UnsupportedCheckpointError(f"merges.txt merge {number}", repr(" ".join(merge)), "two tokens a line")
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}
    split = {"type": "Split", "pattern": {"Regex": QWEN2_PATTERN}, "behavior": "Isolated", "invert": False}
    by_id = {identifier: content for content, identifier in vocabulary.items()}
    for content, entry in added.items():
        if vocabulary.get(content, entry["id"]) != entry["id"] or by_id.get(entry["id"], content) != content:
            raise UnsupportedCheckpointError(
                f"vocab.json id {entry['id']}", repr(by_id.get(entry["id"])), f"{content}, or nothing, at this id"
            )
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
            "merges": merges,
        },
    }
    return json.dumps(tokenizer, ensure_ascii=False, indent=2)


def special_ids(tokenizer: Tokenizer, folder: Path, config: dict[str, Any]) -> SpecialIds:
    """Looks the special ids up by name."""

    def required(content: str) -> int:
        identifier = tokenizer.token_to_id(content)
        if identifier is None:
            raise UnsupportedCheckpointError(
                f"tokenizer {content}", "nothing", "a vocabulary with <|im_end|>, <img>, </img> and <IMG_CONTEXT>"
            )
        return int(identifier)

    contents = special_contents(folder, config)
    skipped = {identifier for c in contents if (identifier := tokenizer.token_to_id(c)) is not None}
    pad = token_content(config.get("pad_token", NAMED_SPECIAL_TOKENS["pad_token"])) or "<|endoftext|>"
    return SpecialIds(
        eos=required("<|im_end|>"),
        pad=required(pad),
        image_start=required("<img>"),
        image_end=required("</img>"),
        image_context=required("<IMG_CONTEXT>"),
        skipped_in_text=tuple(sorted(skipped)),
    )
