"""Instructions the model follows, and their answers with the place in the picture each character comes from."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from random import Random

    from vintern_train.scene import Scene, Span

READ = "Đọc toàn bộ chữ trong ảnh."
READ_ENGLISH = "Read all the text in the image."
TOTAL = "Tổng cộng là bao nhiêu?"
DATE = "Ngày trên hóa đơn?"
EXTRACT = "Trích xuất hóa đơn thành JSON."
READ_VARIANTS = (READ, READ, READ, READ_ENGLISH, "Đọc chữ trong ảnh.", "Read the text.")
TOTAL_VARIANTS = (TOTAL, TOTAL, TOTAL, "Tổng tiền là bao nhiêu?", "Tổng cộng bao nhiêu tiền?")
DATE_VARIANTS = (DATE, DATE, DATE, "Hóa đơn ngày nào?", "Ngày nào?")
EXTRACT_VARIANTS = (EXTRACT, EXTRACT, EXTRACT, "Trích xuất thông tin hóa đơn dưới dạng JSON.")
SYSTEM_MESSAGE = "Bạn là Vintern."


@dataclass
class Answer:
    """A text, and for each of its characters the index in the scene's text it is copied from, or -1."""

    text: str = ""
    sources: list[int] = field(default_factory=list)

    def literal(self, text: str) -> None:
        """Adds characters that are in no picture."""
        self.text += text
        self.sources += [-1] * len(text)

    def copied(self, scene: Scene, span: Span) -> None:
        """Adds characters of the scene."""
        self.text += scene.text[span.start : span.end]
        self.sources += range(span.start, span.end)

    def quoted(self, scene: Scene, span: Span) -> None:
        """Adds characters of the scene as a JSON string."""
        self.literal('"')
        for index in range(span.start, span.end):
            escaped = json.dumps(scene.text[index], ensure_ascii=False)[1:-1]
            self.text += escaped
            self.sources += [index] * len(escaped)
        self.literal('"')

    def digits(self, scene: Scene, span: Span) -> None:
        """Adds the digits among characters of the scene: an amount as a JSON number."""
        for index in range(span.start, span.end):
            if scene.text[index].isdigit():
                self.text += scene.text[index]
                self.sources.append(index)


def read_answer(scene: Scene) -> Answer:
    """All text of the picture, lines as they stand."""
    return Answer(scene.text, [index if c != "\n" else -1 for index, c in enumerate(scene.text)])


def copied_answer(scene: Scene, span: Span) -> Answer:
    """A field as it is printed."""
    answer = Answer()
    answer.copied(scene, span)
    return answer


def extract_answer(scene: Scene) -> Answer:
    """The receipt as JSON: ``{"shop", "date", "items": [{"name", "price"}], "total"}``, amounts as numbers.

    Raises:
        ValueError: the scene is no receipt.
    """
    receipt = scene.receipt
    if receipt is None:
        raise ValueError("only a receipt can be extracted")
    answer = Answer()
    answer.literal('{"shop": ')
    answer.quoted(scene, receipt.shop)
    answer.literal(', "date": ')
    answer.quoted(scene, receipt.date)
    answer.literal(', "items": [')
    for number, item in enumerate(receipt.items):
        answer.literal(', {"name": ' if number else '{"name": ')
        answer.quoted(scene, item.name)
        answer.literal(', "price": ')
        answer.digits(scene, item.price)
        answer.literal("}")
    answer.literal('], "total": ')
    answer.digits(scene, receipt.total)
    answer.literal("}")
    return answer


@dataclass(frozen=True)
class Turn:
    """A question and its answer."""

    question: str
    answer: Answer


def conversation(scene: Scene, random: Random) -> list[Turn]:
    """One or two questions about a page of lines, one to three about a receipt."""
    read = Turn(random.choice(READ_VARIANTS), read_answer(scene))
    receipt = scene.receipt
    if receipt is None:
        return [read]
    others = [
        Turn(random.choice(TOTAL_VARIANTS), copied_answer(scene, receipt.total)),
        Turn(random.choice(DATE_VARIANTS), copied_answer(scene, receipt.date)),
        Turn(random.choice(EXTRACT_VARIANTS), extract_answer(scene)),
    ]
    turns = random.choices([read, *others], weights=(45, 12, 12, 31), k=1)
    if random.random() < 0.5:
        turns += [turn for turn in random.sample([read, *others[:2]], 2) if turn is not turns[0]]
    return turns


def prompt_text(question: str, image_tokens: int) -> str:
    """The text up to the first answer: system message, image, question (template internvl2_5)."""
    image = f"<img>{'<IMG_CONTEXT>' * image_tokens}</img>\n"
    return f"<|im_start|>system\n{SYSTEM_MESSAGE}<|im_end|>\n{turn_text(image + question)}"


def turn_text(question: str) -> str:
    """A user's turn and the beginning of the answer's."""
    return f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n"
