"""Random small models: read as they were drawn, exported, and equal to NumPy and to themselves with a past."""

from pathlib import Path

import numpy as np
import pytest

from conftest import export
from support.random_models import Model, draw, write_random_checkpoint
from support.runtime import Floats, Package
from vintern_export.config import load_config
from vintern_export.config_types import Layout, NormType
from vintern_export.numbers import Precision
from vintern_export.package import ExportOptions
from vintern_export.verify.run import verify_package

SEEDS = 60
HALF_PRECISION_EVERY = 4
TOLERANCE = {Precision.FP32: 5e-5, Precision.FP16: 2e-2}


def check_configuration(model: Model, folder: Path) -> None:
    """The configuration gives back the numbers it was written from."""
    config = load_config(folder).model
    vision, language = config.vision, config.language
    assert config.layout is (Layout.TRANSFORMERS if model.native else Layout.ORIGINAL)
    assert (config.shuffle_factor, config.transposed_tokens) == (model.shuffle, model.v1)
    assert config.tokens_per_tile == (model.grid // model.shuffle) ** 2
    assert (vision.image_size, vision.patch_size, vision.grid) == (model.tile_size, model.patch, model.grid)
    assert vision.position_grid == model.stored_size // model.patch
    assert (vision.hidden_size, vision.num_attention_heads) == (model.vision_width, model.vision_heads)
    assert (vision.num_hidden_layers, vision.num_exported_layers) == (model.vision_layers, model.exported_layers)
    assert (vision.qkv_bias, vision.qk_normalization) == (model.qkv_bias, model.qk_norm)
    assert vision.norm_type is (NormType.RMS_NORM if model.rms else NormType.LAYER_NORM)
    assert (vision.layer_norm_eps, vision.qk_norm_eps) == (model.vision_eps, 1e-6 if model.native else model.vision_eps)
    assert (language.num_attention_heads, language.num_key_value_heads) == (model.heads, model.kv_heads)
    assert (language.head_dim, language.hidden_size, language.vocab_size) == (model.head_dim, model.hidden, model.rows)
    assert (language.rms_norm_eps, language.rope_theta) == (model.rms_eps, model.theta)
    assert language.max_position_embeddings == model.max_length


def check_past(package: Package, hidden: int, seed: int, tolerance: float) -> None:
    """Logits of the last position: at once, in two pieces, and position by position."""
    generator = np.random.default_rng(seed)
    length = int(generator.integers(3, 30))
    first = int(generator.integers(1, length - 1))
    embeds = generator.standard_normal((1, length, hidden), dtype=np.float32)
    expected = package.last_logits(embeds[0])
    results: list[Floats] = []
    for cuts in ([first, length], list(range(1, length + 1))):
        session, past = package.decoder(length), 0
        cache = session.empty_cache(1)
        for stop in cuts:
            logits, cache = session.run(embeds[:, past:stop], [past], cache)
            past = stop
        results.append(logits[0])
    for result in results:
        assert np.abs(result - expected).max() <= tolerance * np.abs(expected).max()


@pytest.mark.parametrize("seed", range(2000, 2700))
def test_random_models(tmp_path: Path, seed: int) -> None:
    model = draw(seed)
    folder = write_random_checkpoint(model, tmp_path / "checkpoint", seed)
    check_configuration(model, folder)
    precision = Precision.FP16 if seed % HALF_PRECISION_EVERY == 0 else Precision.FP32
    package = export(folder, tmp_path / "package", ExportOptions(precision=precision))
    for source in (folder, None):
        lines: list[str] = []
        assert verify_package(package.folder, source, record=False, report=lines.append), (model, lines)
    check_past(package, model.hidden, seed, TOLERANCE[precision])
