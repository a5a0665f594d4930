"""Runs a package the way a runtime would, in as few lines as possible."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from tokenizers import Tokenizer

from vintern_export.verify.files import embedding_rows
from vintern_export.verify.sessions import DecoderSession

Floats = npt.NDArray[np.float32]


class Package:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))

    def variant(self, graph: str) -> dict[str, Any]:
        entry: dict[str, Any] = self.manifest["graphs"][graph][0]
        return entry

    def run(self, graph: str, value: Floats) -> Floats:
        session = onnxruntime.InferenceSession(
            str(self.folder / self.variant(graph)["files"][0]["name"]), providers=["CPUExecutionProvider"]
        )
        result: Floats = session.run(None, {self.variant(graph)["inputs"][0]["name"]: value})[0]
        return result

    def image_embeds(self, pixel_values: Floats) -> Floats:
        return self.run("projector", self.run("vision_encoder", pixel_values))

    def embed(self, ids: list[int], image_embeds: Floats | None = None) -> Floats:
        embeds = embedding_rows(self.folder, self.manifest, ids)
        if image_embeds is not None:
            places = np.array(ids) == self.manifest["tokens"]["image_context"]
            embeds[places] = image_embeds.reshape(-1, embeds.shape[1])
        return embeds

    def decoder(self, capacity: int) -> DecoderSession:
        return DecoderSession(self.folder, self.variant("decoder"), capacity)

    def last_logits(self, embeds: Floats) -> Floats:
        session = self.decoder(len(embeds))
        logits: Floats = session.run(embeds[None], [0], session.empty_cache(1))[0][0]
        return logits

    def greedy(self, embeds: Floats, settings: dict[str, Any]) -> tuple[Floats, list[int]]:
        """(logits of the first step, ids); ``settings`` as in the golden cases."""
        eos, limit = self.manifest["tokens"]["eos"], settings["max_new_tokens"]
        session = self.decoder(len(embeds) + limit)
        logits, cache = session.run(embeds[None], [0], session.empty_cache(1))
        first, past = logits[0], len(embeds)
        ids: list[int] = []
        while True:
            scores, penalty = logits[0].copy(), settings.get("repetition_penalty", 1.0)
            for token in set(ids):
                scores[token] = scores[token] * penalty if scores[token] < 0 else scores[token] / penalty
            if len(ids) < settings.get("min_new_tokens", 0):
                scores[eos] = -np.inf
            ids.append(int(scores.argmax()))
            if ids[-1] == eos or len(ids) == limit:
                return first, ids
            logits, cache = session.run(self.embed(ids[-1:])[None], [past], cache)
            past += 1
