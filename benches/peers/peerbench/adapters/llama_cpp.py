"""llama.cpp: the language model at Q4_0, the vision part at Q8_0 through its library for images.

The functions of the C library are called one by one, so that Python's sampling and copies of logits are not measured.
"""

from __future__ import annotations

import ctypes
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import llama_cpp
from llama_cpp import mtmd_cpp

from peerbench.adapters.harness import Generation, NotOfferedError, Stamps, image_tokens_match, run

if TYPE_CHECKING:
    from peerbench.task import Task

LANGUAGE = "language-q4_0.gguf"
VISION = "vision-q8_0.gguf"


def checked(value: Any, what: str) -> Any:
    """A pointer that must not be null."""
    if not value:
        raise RuntimeError(f"llama.cpp could not {what}")
    return value


class LlamaCpp:
    """The language model with the vision part beside it."""

    precision = "Q4_0"

    def __init__(self, task: Task) -> None:
        self.task = task
        self.folder = Path(task.converted)

    def versions(self) -> dict[str, str]:
        """Package names and versions."""
        return {name: version(name) for name in ("llama-cpp-python", "gguf")}

    def load(self) -> None:
        """Both parts; the context holds the longest call."""
        llama_cpp.llama_backend_init()
        file = str(self.folder / LANGUAGE).encode()
        options = llama_cpp.llama_model_default_params()
        self.model = checked(llama_cpp.llama_model_load_from_file(file, options), "load the language model")
        context = llama_cpp.llama_context_default_params()
        context.n_ctx = self.task.prompt_tokens + self.task.new_tokens
        context.n_batch = self.task.prompt_tokens
        context.n_threads = context.n_threads_batch = self.task.threads
        self.context = checked(llama_cpp.llama_init_from_model(self.model, context), "make a context")
        self.sampler = llama_cpp.llama_sampler_init_greedy()
        vision = mtmd_cpp.mtmd_context_params_default()
        vision.n_threads = self.task.threads
        vision.use_gpu = vision.print_timings = vision.warmup = False
        file = str(self.folder / VISION).encode()
        self.tower = checked(mtmd_cpp.mtmd_init_from_file(file, self.model, vision), "load the vision part")
        self.chunks: list[Any] = []

    def image(self) -> list[Any]:
        """The chunks of a prompt that is one image of the grid's size."""
        tiles, side = self.task.tiles - 1 or 1, self.task.image_size
        rows = max(row for row in range(1, tiles + 1) if tiles % row == 0 and row * row <= tiles)
        width, height = tiles // rows * side, rows * side
        size = 3 * width * height
        pixels = (ctypes.c_uint8 * size).from_buffer_copy((bytes(range(251)) * (size // 251 + 1))[:size])
        bitmap = checked(mtmd_cpp.mtmd_bitmap_init(width, height, pixels), "take the image")
        text = mtmd_cpp.mtmd_default_marker()
        prompt = mtmd_cpp.mtmd_input_text(text=text, text_len=len(text), add_special=False, parse_special=True)
        self.parts = checked(mtmd_cpp.mtmd_input_chunks_init(), "make a prompt")
        bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
        if mtmd_cpp.mtmd_tokenize(self.tower, self.parts, ctypes.byref(prompt), bitmaps, 1):
            raise RuntimeError("llama.cpp could not tile the image")
        count = mtmd_cpp.mtmd_input_chunks_size(self.parts)
        chunks = [mtmd_cpp.mtmd_input_chunks_get(self.parts, index) for index in range(count)]
        images = [chunk for chunk in chunks if mtmd_cpp.mtmd_input_chunk_get_type(chunk)]
        tokens = sum(mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk) for chunk in images)
        image_tokens_match(self.task, (1, tokens))
        return images

    def vision(self) -> None:
        """All tiles; they are cut the first time."""
        self.chunks = self.chunks or self.image()
        for chunk in self.chunks:
            if mtmd_cpp.mtmd_encode_chunk(self.tower, chunk):
                raise RuntimeError("llama.cpp could not encode the image")

    def greedy(self, prompt: list[int], new_tokens: int) -> Generation:
        """Greedy search."""
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), True)
        stamps = Stamps()
        self.decode(prompt)
        for number in range(new_tokens):
            token = llama_cpp.llama_sampler_sample(self.sampler, self.context, -1)
            stamps.add()
            if number + 1 < new_tokens:
                self.decode([token])
        return stamps.generation()

    def decode(self, tokens: list[int]) -> None:
        """One call of the language model."""
        ids = (llama_cpp.llama_token * len(tokens))(*tokens)
        if llama_cpp.llama_decode(self.context, llama_cpp.llama_batch_get_one(ids, len(tokens))):
            raise RuntimeError("llama.cpp could not decode")

    def beams(self, prompt: list[int], new_tokens: int) -> tuple[Generation, float]:
        """There are none."""
        del prompt, new_tokens
        raise NotOfferedError("llama.cpp has no beam search")


def prepare(task: Task) -> None:
    """Writes both parts as GGUF; llama.cpp rounds the language model itself."""
    from peerbench.gguf_files import write_language, write_vision

    folder = Path(task.converted)
    unrounded = folder / "language-bf16.gguf"
    write_language(Path(task.language), unrounded)
    options = llama_cpp.llama_model_quantize_default_params()
    options.ftype = llama_cpp.LLAMA_FTYPE_MOSTLY_Q4_0
    options.nthread = task.threads
    rounded = str(folder / LANGUAGE).encode()
    if llama_cpp.llama_model_quantize(str(unrounded).encode(), rounded, ctypes.byref(options)):
        raise RuntimeError("llama.cpp could not quantise the language model")
    unrounded.unlink()
    write_vision(Path(task.vision), folder / VISION)


if __name__ == "__main__":
    run(LlamaCpp, prepare)
