"""Scores during training, on pages of the training vocabulary drawn from a seed of their own."""

from __future__ import annotations

from random import Random

import torch

from vintern_train import questions, tokenizer
from vintern_train.metrics import Scores
from vintern_train.model import Cache, Vintern
from vintern_train.samples import draw_scene
from vintern_train.text import TextSource
from vintern_train.tiling import TOKENS, cut_tiles, pixel_values

SEED = 999
PAGES = 8
"""Pages of lines and as many receipts."""


@torch.inference_mode()
def validate(model: Vintern) -> dict[str, float]:
    """Character error rate on lines and on receipts, share of totals and dates that are right."""
    model.eval()
    source = TextSource(Random(SEED), held_out=False)
    scores = {"lines": Scores(), "receipts": Scores()}
    for number in range(2 * PAGES):
        receipt = number % 2 == 1
        scene, grid = draw_scene(source, receipt=receipt, lines=None if receipt else 1 + number // 2 % 3)
        pixels = torch.from_numpy(pixel_values(cut_tiles(scene.image, grid)))
        embeds = model.project(model.vision_model(pixels))
        group = scores["receipts" if receipt else "lines"]
        group.add("read", greedy(model, embeds, grid.tiles, questions.READ), scene.text)
        if scene.receipt is not None:
            for task, asked, span in (
                ("total", questions.TOTAL, scene.receipt.total),
                ("date", questions.DATE, scene.receipt.date),
            ):
                wanted = scene.text[span.start : span.end]
                group.add(task, greedy(model, embeds, grid.tiles, asked), wanted)
    model.train()
    return {f"{name} {key}": round(rate, 4) for name, group in scores.items() for key, rate in group.rates().items()}


def greedy(model: Vintern, image_embeds: torch.Tensor, tiles: int, question: str, limit: int = 380) -> str:
    """The greedy answer to a question about a picture."""
    ids = torch.tensor([tokenizer.encode(questions.prompt_text(question, tiles * TOKENS))[0]])
    past = [Cache() for _ in range(model.sizes.layers)]
    language = model.language_model
    end = tokenizer.special_ids()["<|im_end|>"]
    embeds = model.merged(ids, image_embeds)
    answer: list[int] = []
    while len(answer) < limit:
        hidden = language(embeds, past)[0][:, -1]
        token = int(language.lm_head(hidden).argmax())
        if token == end:
            break
        answer.append(token)
        embeds = language.model.embed_tokens(torch.tensor([[token]]))
    text: str = tokenizer.tokenizer().decode(answer)
    return text.strip()
