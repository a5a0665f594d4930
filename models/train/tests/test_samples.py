"""Training samples: what stands where, and what the answers copy."""

import json
from random import Random

import numpy as np
import pytest

from vintern_train import questions, samples, tokenizer
from vintern_train.text import CHARACTERS, TextSource
from vintern_train.tiling import PATCHES, TOKENS, choose_grid


def source(seed: int, *, held_out: bool = False) -> TextSource:
    return TextSource(Random(seed), held_out=held_out)


@pytest.mark.parametrize("seed", range(8))
def test_patches_say_the_text_of_a_level_line(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vintern_train.degrade.MAX_ANGLE", 0.0)
    scene, grid = samples.draw_scene(source(seed), receipt=False, lines=1)
    classes = samples.patch_classes(scene, grid)[: grid.columns * grid.rows]
    rows = classes.reshape(grid.rows, grid.columns, PATCHES, PATCHES, samples.SLOTS).transpose(0, 2, 1, 3, 4)
    found = [int(c) for c in rows.reshape(grid.rows * PATCHES, -1).ravel() if c > 0]
    assert "".join(CHARACTERS[c - 1] for c in found) == scene.text


@pytest.mark.parametrize("seed", range(4))
def test_answers_point_at_the_characters_they_copy(seed: int) -> None:
    scene, grid = samples.draw_scene(source(seed), receipt=True)
    for turn in questions.conversation(scene, Random(seed)):
        answer = turn.answer
        assert len(answer.text) == len(answer.sources)
        for character, index in zip(answer.text, answer.sources, strict=True):
            assert index < 0 or character in json.dumps(scene.text[index], ensure_ascii=False)
    sample = samples.make_sample(scene, grid, questions.conversation(scene, Random(seed)))
    looked_at = sample.ids[sample.places[sample.places >= 0]]
    assert set(looked_at) == {tokenizer.special_ids()["<IMG_CONTEXT>"]}
    assert (sample.ids == tokenizer.special_ids()["<IMG_CONTEXT>"]).sum() == grid.tiles * TOKENS
    asked = np.flatnonzero(sample.labels >= 0)[:-1]
    following = sample.ids[asked + 1]
    assert (sample.labels[asked] == following).all()


def test_the_extraction_is_json_with_the_receipts_fields() -> None:
    scene, _ = samples.draw_scene(source(3), receipt=True)
    content = json.loads(questions.extract_answer(scene).text)
    assert content["total"] == sum(item["price"] for item in content["items"])
    assert list(content) == ["shop", "date", "items", "total"]


def test_the_same_seed_draws_the_same_page() -> None:
    first, second = (samples.draw_scene(source(5), receipt=True)[0] for _ in range(2))
    assert first.text == second.text
    assert (np.asarray(first.image) == np.asarray(second.image)).all()


def test_held_out_words_are_not_trained_on() -> None:
    trained, held_out = source(0), source(0, held_out=True)
    for name in ("syllables", "english", "shops", "goods", "streets", "places", "sentences"):
        assert not set(getattr(trained, name)) & set(getattr(held_out, name)), name
        assert getattr(held_out, name), name


@pytest.mark.parametrize(
    ("size", "grid"),
    [((600, 100), (6, 1)), ((300, 600), (2, 4)), ((90, 180), (1, 2)), ((500, 500), (3, 3)), ((64, 64), (1, 1))],
)
def test_grids(size: tuple[int, int], grid: tuple[int, int]) -> None:
    found = choose_grid(*size)
    assert (found.columns, found.rows) == grid
