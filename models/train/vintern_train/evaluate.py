"""Asks a package the questions of the evaluation set through the vintern program, and prints its scores.

``python -m vintern_train.evaluate --model PACKAGE`` renders the set, runs every question greedily and with 3 beams, and
prints a table for each. Everything after ``--`` goes to ``vintern chat``, such as ``--provider``.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from vintern_train.heldout import GROUPS, Case, render
from vintern_train.metrics import Scores, table
from vintern_train.program import PROGRAM, ROOT, Program


def evaluate(
    cases: list[Case], images: Path, program: Program, beams: int
) -> tuple[dict[str, Scores], list[dict[str, str]]]:
    """Scores by group, and every answer."""
    scores = {group.name: Scores() for group in GROUPS}
    answers = []
    for number, case in enumerate(cases, 1):
        for question in case.questions:
            found = program.answer(images / case.image, question.question, beams)["text"]
            scores[case.group].add(question.task, found, question.answer)
            answers.append({"case": case.id, "task": question.task, "found": found, "wanted": question.answer})
        if sys.stderr.isatty():
            print(f"\r{beams} beam(s): {number} of {len(cases)}", end="", file=sys.stderr)
    return scores, answers


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=ROOT / "models/vintern-tiny", help="a model package")
    parser.add_argument("--program", type=Path, default=PROGRAM, help="the vintern program")
    parser.add_argument("--out", type=Path, default=ROOT / "target/eval", help="folder for pictures and answers")
    parser.add_argument("--limit", type=int, help="only the first so many cases of each group")
    parser.add_argument("--beams", type=int, nargs="+", default=[1, 3], help="beam counts to run (default: 1 3)")
    parser.add_argument("extra", nargs="*", help="further options of vintern chat, after --")
    arguments = parser.parse_args()
    cases = render(arguments.out, arguments.limit)
    print(f"{len(cases)} pictures, {sum(len(case.questions) for case in cases)} questions, model {arguments.model}")
    program = Program(arguments.program, arguments.model, tuple(arguments.extra))
    for beams in arguments.beams:
        started = time.monotonic()
        scores, answers = evaluate(cases, arguments.out, program, beams)
        print(f"\n{'greedy' if beams == 1 else f'{beams} beams'}, {time.monotonic() - started:.0f} s\n")
        print(table(scores))
        file = arguments.out / f"answers-{beams}.json"
        file.write_text(json.dumps(answers, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
