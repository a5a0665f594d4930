"""The fixed evaluation set: words, amounts, dates and receipt styles that no training image has.

``python -m vintern_train.heldout FOLDER`` renders it: one PNG a case and ``cases.json``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from random import Random

from vintern_train import questions
from vintern_train.samples import draw_scene
from vintern_train.text import TextSource

SEED = 7


@dataclass(frozen=True)
class Group:
    """Cases of one kind."""

    name: str
    receipt: bool
    unseen: bool
    lines: tuple[int, ...]
    count: int


GROUPS = (
    Group("lines 1-3, seen fonts", receipt=False, unseen=False, lines=(1, 2, 3), count=90),
    Group("lines 4-8, seen fonts", receipt=False, unseen=False, lines=(4, 5, 6, 7, 8), count=40),
    Group("receipts, seen fonts", receipt=True, unseen=False, lines=(), count=70),
    Group("lines 1-3, unseen fonts", receipt=False, unseen=True, lines=(1, 2, 3), count=60),
    Group("receipts, unseen fonts", receipt=True, unseen=True, lines=(), count=40),
)


@dataclass(frozen=True)
class Question:
    """A question and the right answer; ``task`` is ``read``, ``total``, ``date`` or ``extract``."""

    task: str
    question: str
    answer: str


@dataclass(frozen=True)
class Case:
    """A picture and what is asked about it."""

    id: str
    group: str
    image: str
    questions: tuple[Question, ...]


def render(folder: Path, limit: int | None = None) -> list[Case]:
    """Renders the set, or the first ``limit`` cases of each group; returns the cases."""
    folder.mkdir(parents=True, exist_ok=True)
    cases: list[Case] = []
    for group in GROUPS:
        for number in range(group.count if limit is None else min(limit, group.count)):
            random = Random(f"{SEED} {group.name} {number}")
            source = TextSource(random, held_out=True)
            lines = random.choice(group.lines) if group.lines else None
            scene, _ = draw_scene(source, receipt=group.receipt, unseen=group.unseen, lines=lines)
            asked = [Question("read", questions.READ, scene.text)]
            if scene.receipt:
                total, date = (questions.copied_answer(scene, s) for s in (scene.receipt.total, scene.receipt.date))
                asked.append(Question("total", questions.TOTAL, total.text))
                asked.append(Question("date", questions.DATE, date.text))
                asked.append(Question("extract", questions.EXTRACT, questions.extract_answer(scene).text))
            name = f"{len(cases):03}"
            scene.image.save(folder / f"{name}.png")
            cases.append(Case(name, group.name, f"{name}.png", tuple(asked)))
    content = [asdict(case) for case in cases]
    (folder / "cases.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")
    return cases


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="where to put pictures and cases.json")
    parser.add_argument("--limit", type=int, help="only the first so many of each group")
    arguments = parser.parse_args()
    cases = render(arguments.folder, arguments.limit)
    print(f"{len(cases)} pictures in {arguments.folder}")


if __name__ == "__main__":
    main()
