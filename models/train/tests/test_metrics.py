"""Scores of answers."""

import pytest

from vintern_train.metrics import Scores, edit_distance, fields, table


@pytest.mark.parametrize(
    ("found", "wanted", "edits"), [("", "", 0), ("abc", "", 3), ("kitten", "sitting", 3), ("a b", "ab", 1)]
)
def test_edit_distance(found: str, wanted: str, edits: int) -> None:
    assert edit_distance(found, wanted) == edits
    assert edit_distance(wanted, found) == edits


def test_rates_are_over_the_whole_group() -> None:
    scores = Scores()
    scores.add("read", "abcd", "abcd")
    scores.add("read", "", "ab cd e")
    scores.add("total", "1.000đ", "1.000đ")
    scores.add("total", "1.000", "1.000đ")
    assert scores.rates() == {"CER": 7 / 11, "WER": 3 / 4, "total": 0.5}
    assert "| g | 63.6 % | 75.0 % | 50.0 % |" in table({"g": scores})


def test_fields_of_an_extraction() -> None:
    wanted = '{"shop": "A", "date": "1/1/2020", "items": [{"name": "x", "price": 1}], "total": 1}'
    found = '{"shop": "A", "date": "1/1/2021", "items": [{"name": "x", "price": 1}], "total": 1}'
    scores = Scores()
    scores.add("extract", found, wanted)
    scores.add("extract", found[:-1], wanted)
    assert scores.rates() == {"JSON valid": 0.5, "fields": 0.4}
    assert fields('{"shop": 1}') is None
    assert fields("[]") is None
