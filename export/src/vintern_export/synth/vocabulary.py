"""A byte-level Qwen2-style tokenizer with the real special tokens and a few hundred merges."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from vintern_export.added_tokens import TokenFiles
from vintern_export.output import write_file
from vintern_export.synth.shapes import INTERNVL_TOKENS
from vintern_export.tokenizer import build_tokenizer_json, with_declared_ids

if TYPE_CHECKING:
    from pathlib import Path

    from vintern_export.synth.shapes import Shape

WORDS = (
    "the and of to in is that for on with as this image total amount date number name address what describe read text "
    "receipt table answer question please document price item list store phone one two three from are not you have "
    "system user assistant a an all be by can do image picture photo shows there "
    "là và của có các cho được trong một không này với những người trên tại số tiền tổng cộng ngày tháng năm tên "
    "địa chỉ hóa đơn ảnh hình mô tả chi tiết trích xuất thông tin văn bản đọc nội dung bảng câu hỏi trả lời hãy "
    "cửa hàng sản phẩm giá điện thoại việt nam tiếng bạn tôi hệ thống trợ lý hữu ích công ty trường học "
    "Vintern InternVL đa phương thức gọi phát triển bởi trí tuệ nhân tạo trung thực "
    "Bạn Thủ đô Hãy Mô Tổng thành phố nào gì kể ba điều về ấy bao nhiêu cách "
    "你是 你 是 由 的 一 一个 个 人工智能 助手 上海 实验室 联合 商汤 科技 开发 书生 多 模态 大 模型 英文 名 叫 有用 "
    "无 害 清华大学 及 家 合作 单位 语言 · 万象 ， 、 。"
)
"""Words that become single tokens, with and without a leading space.

They cover the system messages of the templates and the questions of the benchmark: prompts are then about as long as
with Qwen2's own vocabulary, and so are the times they take.
"""


@dataclass(frozen=True)
class Vocabulary:
    """A generated tokenizer.

    ``tokens`` and ``added`` map text (byte-level for the former) to ids; ``merges`` are in rank order; ``size`` is the
    smallest number of rows that covers every id.
    """

    tokens: dict[str, int]
    merges: tuple[tuple[str, str], ...]
    added: dict[str, int]
    special: tuple[str, ...]
    listed_special: tuple[str, ...]

    @property
    def size(self) -> int:
        """One more than the highest id."""
        return max(self.added.values()) + 1


def byte_alphabet() -> list[str]:
    """The printable character that stands for each byte value in byte-level BPE (GPT-2's table)."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = (byte for byte in range(256) if byte not in printable)
    table = {byte: chr(byte) for byte in printable} | {byte: chr(256 + i) for i, byte in enumerate(others)}
    return [table[byte] for byte in range(256)]


def make_vocabulary(shape: Shape) -> Vocabulary:
    """The same vocabulary every time: 256 bytes, merges that build ``WORDS``, the shape's added tokens."""
    alphabet = byte_alphabet()
    texts = dict.fromkeys(text for word in WORDS.split() for text in (word, f" {word}"))
    merges = learn_merges([[alphabet[byte] for byte in text.encode()] for text in texts])
    names_of_tokens = [*sorted(alphabet), *dict.fromkeys(left + right for left, right in merges)]
    tokens = {text: index for index, text in enumerate(names_of_tokens)}
    names = (*shape.special_tokens, *shape.plain_tokens, *INTERNVL_TOKENS)
    first = shape.first_added_id if shape.first_added_id is not None else len(tokens)
    added = {name: first + index for index, name in enumerate(names)}
    special = (*shape.special_tokens, *INTERNVL_TOKENS)
    listed = tuple(name for name in shape.special_tokens if name != "<|endoftext|>")
    return Vocabulary(tokens, tuple(merges), added, special, listed)


def learn_merges(words: list[list[str]]) -> list[tuple[str, str]]:
    """Byte-pair merges that turn every word into one token: the most frequent pair first, ties in text order."""
    merges: list[tuple[str, str]] = []
    while pairs := Counter(pair for word in words for pair in pairwise(word)):
        best = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(best)
        for word in words:
            index = 0
            while index < len(word) - 1:
                if (word[index], word[index + 1]) == best:
                    word[index : index + 2] = [word[index] + word[index + 1]]
                index += 1
    return merges


def write_vocabulary(vocabulary: Vocabulary, folder: Path, *, single_file: bool) -> None:
    """Writes the tokenizer files; ``single_file`` makes ``tokenizer.json`` in place of vocabulary and merges."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False}
    decoder = {
        str(identifier): {"content": name, **flags, "special": name in vocabulary.special}
        for name, identifier in vocabulary.added.items()
    }
    config: dict[str, Any] = {
        "add_bos_token": False,
        "add_prefix_space": False,
        "added_tokens_decoder": decoder,
        "additional_special_tokens": list(vocabulary.listed_special),
        "bos_token": None,
        "clean_up_tokenization_spaces": False,
        "eos_token": "<|im_end|>",
        "errors": "replace",
        "model_max_length": 8192,
        "pad_token": "<|endoftext|>",
        "split_special_tokens": False,
        "tokenizer_class": "Qwen2Tokenizer",
        "unk_token": None,
    }
    write_file(folder / "tokenizer_config.json", json_bytes(config))
    merges = "".join(f"{left} {right}\n" for left, right in vocabulary.merges)
    write_file(folder / "vocab.json", json_bytes(vocabulary.tokens))
    write_file(folder / "merges.txt", f"#version: 0.2\n{merges}".encode())
    if single_file:
        text, _ = with_declared_ids(build_tokenizer_json(folder, TokenFiles(folder)))
        write_file(folder / "tokenizer.json", text.encode())
        (folder / "vocab.json").unlink()
        (folder / "merges.txt").unlink()
    else:
        write_file(folder / "added_tokens.json", json_bytes(vocabulary.added))


def json_bytes(value: object) -> bytes:
    """Readable JSON in UTF-8."""
    return (json.dumps(value, ensure_ascii=False, indent=2) + "\n").encode()
