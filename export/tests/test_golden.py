"""Exported graphs reproduce the reference implementation."""

from typing import Any

import numpy as np
import pytest

from support import golden
from support.runtime import Package

TOLERANCE = 1e-3
NAMES = ("ckpt_a", "ckpt_b")
GREEDY = [(n, c["id"]) for n in NAMES for c in golden.cases(n)["cases"] if c["generation"].get("num_beams", 1) == 1]


@pytest.mark.parametrize(("name", "key"), [(n, v["key"]) for n in NAMES for v in golden.cases(n)["vision"]])
def test_vision_and_projector(packages: dict[str, Package], name: str, key: str) -> None:
    entry = next(v for v in golden.cases(name)["vision"] if v["key"] == key)
    arrays, package = golden.arrays(name), packages[name]
    pixels = golden.pixel_values(entry["image"], package.manifest["architecture"]["image_size"], entry["max_num"])
    assert golden.sha256(pixels) == entry["pixel_values_sha256"]
    features = package.run("vision_encoder", pixels)
    expected = arrays[f"{key}.vit_tile0"][1:]
    np.testing.assert_allclose(features[0, : len(expected)], expected, rtol=0, atol=TOLERANCE)
    embeds, reference = package.run("projector", features), arrays[f"{key}.projector"]
    compared = embeds if len(reference) == len(embeds) else embeds[[0, -1]]
    np.testing.assert_allclose(compared, reference, rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("name", NAMES)
def test_text_logits_at_every_position(packages: dict[str, Package], name: str) -> None:
    arrays, package = golden.arrays(name), packages[name]
    ids = arrays["lm_text.input_ids"].tolist()
    embeds = package.embed(ids)
    expected = arrays["lm_text.logits"]
    for length in (1, 2, len(ids) // 2, len(ids)):
        np.testing.assert_allclose(package.last_logits(embeds[:length]), expected[length - 1], rtol=0, atol=TOLERANCE)
    session = package.decoder(len(ids))
    cache = session.empty_cache(1)
    for position in range(len(ids)):
        logits, cache = session.run(embeds[None, position : position + 1], [position], cache)
        np.testing.assert_allclose(logits[0], expected[position], rtol=0, atol=TOLERANCE)


def prompt_ids(package: Package, case: dict[str, Any]) -> list[int]:
    prompt = case["prompt_collapsed"]
    for count in dict.fromkeys(case["num_patches"]):
        tokens = count * package.manifest["architecture"]["tokens_per_tile"]
        prompt = prompt.replace(f"<IMG_CONTEXT>*{tokens}", "<IMG_CONTEXT>" * tokens)
    ids: list[int] = package.tokenizer.encode(prompt, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize(("name", "identifier"), GREEDY)
def test_greedy_generation(packages: dict[str, Package], name: str, identifier: str) -> None:
    package = packages[name]
    case = next(c for c in golden.cases(name)["cases"] if c["id"] == identifier)
    arrays = golden.arrays(name)
    ids = prompt_ids(package, case)
    assert ids == arrays[f"{identifier}.input_ids"].tolist()
    embeds = None
    if case["images"]:
        side = package.manifest["architecture"]["image_size"]
        pixels = np.concatenate([golden.pixel_values(image, side, case["max_num"]) for image in case["images"]])
        assert golden.sha256(pixels) == case["pixel_values_sha256"]
        embeds = package.image_embeds(pixels)
    logits, output = package.greedy(package.embed(ids, embeds), case["generation"])
    np.testing.assert_allclose(logits, arrays[f"{identifier}.first_step_logits"], rtol=0, atol=TOLERANCE)
    assert output == case["output_ids"]
