"""The tokenizer of the small model."""

from vintern_train import tokenizer
from vintern_train.text import CHARACTERS


def test_every_character_is_one_token() -> None:
    for character in CHARACTERS:
        assert len(tokenizer.encode(character)[0]) == 1, character


def test_offsets_say_which_characters_a_token_stands_for() -> None:
    text = '{"shop": "Phở Bò", "date": "1/2/2025", "items": [{"name": "Ổi", "price": 500}], "total": 500}'
    ids, offsets = tokenizer.encode(text)
    assert "".join(text[start:end] for start, end in offsets) == text
    assert tokenizer.tokenizer().decode(ids) == text


def test_json_syntax_is_shorter_than_its_characters() -> None:
    text = '", "items": [{"name": "'
    assert len(tokenizer.encode(text)[0]) <= len(text) // 2
