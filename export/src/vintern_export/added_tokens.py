"""Added and special tokens of a checkpoint, gathered from the files that may declare them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vintern_export.errors import UnsupportedCheckpointError
from vintern_export.fields import read_json_object

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

NAMED_SPECIAL_TOKENS = {
    "eos_token": "<|endoftext|>",
    "pad_token": "<|endoftext|>",
    "unk_token": "<|endoftext|>",
    "bos_token": None,
    "sep_token": None,
    "cls_token": None,
    "mask_token": None,
}
"""Keys that name one special token, with the defaults of ``Qwen2Tokenizer``; null is no token."""
LISTED_SPECIAL_TOKENS = ("additional_special_tokens", "extra_special_tokens")
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")

AddedTokens = dict[str, dict[str, Any]]
"""Content of an added token -> its entry in ``tokenizer.json``."""


def optional_object(path: Path) -> dict[str, Any]:
    """A JSON object, empty where the file is absent."""
    return read_json_object(path) if path.is_file() else {}


def token_content(value: object) -> str | None:
    """The text of a token written as a string or as an object with ``content``."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else None


def listed_tokens(value: object) -> list[object]:
    """A list of tokens, or the values of an object that names them."""
    if isinstance(value, dict):
        return list(value.values())
    return value if isinstance(value, list) else []


class TokenFiles:
    """What ``tokenizer_config.json``, ``special_tokens_map.json`` and ``added_tokens.json`` say together.

    As in the reference, a configuration with ``added_tokens_decoder`` stands alone; ``special_tokens_map.json`` counts
    only beside an older one, and then comes first.
    """

    def __init__(self, folder: Path) -> None:
        self.config = optional_object(folder / "tokenizer_config.json")
        self.added = optional_object(folder / "added_tokens.json")
        settings = self.config
        if self.config.get("added_tokens_decoder") is None:
            older = optional_object(folder / "special_tokens_map.json")
            settings = self.config | older
            for key in LISTED_SPECIAL_TOKENS:
                settings[key] = [*listed_tokens(self.config.get(key)), *listed_tokens(older.get(key))]
        self.named = {key: token_content(settings.get(key, default)) for key, default in NAMED_SPECIAL_TOKENS.items()}
        self._listed = [token_content(v) for key in LISTED_SPECIAL_TOKENS for v in listed_tokens(settings.get(key))]

    @property
    def special_contents(self) -> list[str]:
        """Tokens the reference (slow) tokenizer drops with ``skip_special_tokens``.

        These are the named special tokens and the listed ones. Tokens that are merely flagged special in
        ``added_tokens_decoder`` stay in the text.
        """
        return [content for content in dict.fromkeys([*self.named.values(), *self._listed]) if content]

    def declared_tokens(self, vocabulary: Mapping[str, int]) -> AddedTokens:
        """Added tokens by content, in the order of their ids.

        They come from ``added_tokens_decoder``, from ``added_tokens.json``, and from the special tokens that stand in
        ``vocabulary``: those are matched literally, too.

        Raises:
            UnsupportedCheckpointError: an entry is malformed, or the files disagree.
        """
        tokens = self._decoder_tokens()
        special = self.special_contents
        for content, identifier in self.added.items():
            if isinstance(identifier, bool) or not isinstance(identifier, int):
                raise UnsupportedCheckpointError(f"added_tokens.json {content}", repr(identifier), "an integer id")
            entry = tokens.setdefault(content, added_token(content, identifier, special=content in special))
            if entry["id"] != identifier:
                raise UnsupportedCheckpointError(
                    f"added_tokens.json {content}", str(identifier), f"{entry['id']}, as tokenizer_config.json says"
                )
        for content in special:
            if content in vocabulary:
                tokens.setdefault(content, added_token(content, vocabulary[content], special=True))
        by_id: dict[int, str] = {}
        for content, entry in tokens.items():
            if by_id.setdefault(entry["id"], content) != content:
                found = f"both {by_id[entry['id']]} and {content}"
                raise UnsupportedCheckpointError(f"added token id {entry['id']}", found, "one token an id")
        return dict(sorted(tokens.items(), key=lambda item: int(item[1]["id"])))

    def _decoder_tokens(self) -> AddedTokens:
        decoder = self.config.get("added_tokens_decoder") or {}
        if not isinstance(decoder, dict):
            raise UnsupportedCheckpointError(
                "tokenizer_config.json added_tokens_decoder", type(decoder).__name__, "a JSON object"
            )
        tokens: AddedTokens = {}
        for key, entry in decoder.items():
            content = token_content(entry)
            if not isinstance(entry, dict) or content is None or not key.isdecimal():
                raise UnsupportedCheckpointError(
                    f"tokenizer_config.json added_tokens_decoder.{key}",
                    repr(entry),
                    "an id with an object with content",
                )
            flags = {flag: bool(entry.get(flag)) for flag in FLAGS}
            tokens[content] = {"id": int(key), "content": content, **flags}
        return tokens


def added_token(content: str, identifier: int, *, special: bool) -> dict[str, Any]:
    """A token that is matched literally and strips nothing around it."""
    return {"id": identifier, "content": content, **dict.fromkeys(FLAGS, False), "special": special}
