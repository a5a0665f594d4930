"""Compares token ids: this PyTorch model, searched by transformers, against the vintern program.

``python -m vintern_train.parity CHECKPOINT PACKAGE`` asks both the reading question about 200 held-out pictures (and a
receipt's other questions in turn), greedily and with 3 beams. PACKAGE is the fp32 export of CHECKPOINT. The language
model is transformers' Qwen2ForCausalLM (4.44.2) with the checkpoint's weights and the search its ``generate``; the
vision tower and the projector are those of :mod:`vintern_train.model`.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from vintern_train import questions, tokenizer
from vintern_train.checkpoint import read_checkpoint
from vintern_train.heldout import render
from vintern_train.program import MAX_NEW_TOKENS, PROGRAM, Program
from vintern_train.tiling import TOKENS, choose_grid, cut_tiles, pixel_values

if TYPE_CHECKING:
    from vintern_train.model import Vintern

COUNT = 200


def reference_language_model(checkpoint: Path, model: Vintern) -> Any:  # noqa: ANN401 - transformers has no types
    """transformers' Qwen2 with the weights of the model, float32."""
    from transformers import Qwen2Config, Qwen2ForCausalLM  # noqa: PLC0415 - only this script needs it

    settings = json.loads((checkpoint / "config.json").read_text(encoding="utf-8"))["llm_config"]
    settings.pop("torch_dtype")
    reference = Qwen2ForCausalLM(Qwen2Config(**settings, attn_implementation="eager"))
    reference.load_state_dict(model.language_model.state_dict())
    return reference.eval()


@torch.inference_mode()
def reference_ids(model: Vintern, language: Any, image: Image.Image, question: str, beams: int) -> list[int]:  # noqa: ANN401
    """Ids of the answer, the end token included."""
    grid = choose_grid(*image.size)
    pixels = torch.from_numpy(pixel_values(cut_tiles(image, grid)))
    embeds = model.project(model.vision_model(pixels))
    ids = torch.tensor([tokenizer.encode(questions.prompt_text(question, grid.tiles * TOKENS))[0]])
    made = language.generate(
        inputs_embeds=model.merged(ids, embeds),
        attention_mask=torch.ones_like(ids),
        do_sample=False,
        num_beams=beams,
        max_new_tokens=MAX_NEW_TOKENS,
        eos_token_id=tokenizer.special_ids()["<|im_end|>"],
        pad_token_id=tokenizer.special_ids()["<|endoftext|>"],
    )
    answer: list[int] = made[0].tolist()
    return answer


def main() -> None:
    """The command line; exit code 1 when any ids differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path, metavar="CHECKPOINT")
    parser.add_argument("package", type=Path, metavar="PACKAGE")
    parser.add_argument("--program", type=Path, default=PROGRAM, help="the vintern program")
    parser.add_argument("--count", type=int, default=COUNT, help=f"pictures (default: {COUNT})")
    arguments = parser.parse_args()
    model = read_checkpoint(arguments.checkpoint)
    language = reference_language_model(arguments.checkpoint, model)
    program = Program(arguments.program, arguments.package)
    different = 0
    with tempfile.TemporaryDirectory() as folder:
        cases = render(Path(folder))
        cases = cases[:: max(1, len(cases) // arguments.count)][: arguments.count]
        for number, case in enumerate(cases):
            question = case.questions[number % len(case.questions)].question
            path = Path(folder) / case.image
            with Image.open(path) as image:
                for beams in (1, 3):
                    wanted = reference_ids(model, language, image.convert("RGB"), question, beams)
                    found = program.answer(path, question, beams)["token_ids"]
                    if found != wanted:
                        different += 1
                        print(f"{case.id}, {beams} beam(s), {question}\n  PyTorch {wanted}\n  vintern {found}")
    print(f"{2 * len(cases) - different} of {2 * len(cases)} answers have the same ids ({len(cases)} pictures)")
    raise SystemExit(different > 0)


if __name__ == "__main__":
    main()
