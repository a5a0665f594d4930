"""Medians, table and plot."""

from __future__ import annotations

import sys
import xml.etree.ElementTree as ET
from typing import TYPE_CHECKING, Any

import pytest

from peerbench.engines import environments_for
from peerbench.ours import figures
from peerbench.plot import plot
from peerbench.preparation import plain_tokens
from peerbench.process import FailedError, run
from peerbench.settings import read_settings
from peerbench.summary import summary
from peerbench.table import advantage, table
from peerbench.task import Task

if TYPE_CHECKING:
    from pathlib import Path

SIZES = {"image_size": 448, "tiles": 7, "image_tokens": 1792, "text_tokens": 127, "plain_tokens": 500}
ASKED = {"new_tokens": 64, "num_beams": 3, "repetition_penalty": 3.5, "threads": 2}
TASK: dict[str, Any] = SIZES | ASKED | {"prompt_tokens": 1919}
ROUND: dict[str, Any] = {
    "precision": "int4",
    "versions": {"engine": "1.0"},
    "not_offered": {},
    "load": 1.0,
    "vision": 6.0,
    "prompt_tokens": 1919,
    "prefill": 19.19,
    "step": 0.05,
    "greedy_call": 30.0,
    "beam_step": 0.065,
    "beam_penalty": 3.5,
    "beam_call": 31.0,
    "peak_memory": 3 << 30,
}


def without(found: dict[str, Any], *names: str, **others: object) -> dict[str, Any]:
    return {name: value for name, value in found.items() if name not in names} | others


def results() -> dict[str, Any]:
    llama = without(ROUND, "beam_step", "beam_call", "beam_penalty", not_offered={"beams": "no beam search"})
    genai = without(ROUND, "vision", not_offered={"vision": "language model alone"})
    rounds = {
        "vintern": ROUND,
        "transformers": ROUND | {"prefill": 38.38, "step": 0.25, "beam_call": 124.0},
        "llama_cpp": llama,
        "openvino": ROUND | {"beam_penalty": 1.0},
        "onnxruntime_genai": genai,
    }
    engines = {name: summary([found]) for name, found in rounds.items()}
    return {"machine": "a machine", "task": TASK, "repeats": 1, "engines": engines}


def test_a_summary_takes_medians_and_rates_of_them() -> None:
    rounds = [ROUND | {"step": step, "beam_step": 2 * step} for step in (0.1, 0.5, 0.2)]
    found = summary(rounds)
    assert found["step"] == 0.2
    assert found["decode_rate"] == pytest.approx(5)
    assert found["prefill_rate"] == pytest.approx(100)
    assert found["beam_ratio"] == pytest.approx(2)


def test_an_advantage_is_above_one_for_higher_rates_and_lower_costs() -> None:
    ours, peer = {"decode_rate": 20.0, "vision": 5.0}, {"decode_rate": 10.0, "vision": 10.0}
    assert advantage(ours, peer, "decode_rate") == 2
    assert advantage(ours, peer, "vision") == 2
    assert advantage(ours, peer, "load") is None


def test_the_table_has_figures_ratios_and_what_is_not_offered() -> None:
    lines = table(results()).splitlines()
    assert all(line.count("|") == lines[0].count("|") for line in lines if line.startswith("|"))
    transformers = [line for line in lines if line.startswith("| transformers")]
    assert "| 50 tokens/s | 4.0 tokens/s |" in transformers[0]
    assert "| 2.00 × | 5.00 × |" in transformers[1]
    assert "4.00 ×" in transformers[1]
    llama = next(line for line in lines if line.startswith("| llama.cpp"))
    note = next(line for line in lines if line.endswith("no beam search"))
    assert f"| – {note.split()[0]} |" in llama
    assert any("at penalty 1" in line for line in lines)
    assert any(line.endswith("language model alone") for line in lines)


def test_the_plot_is_well_formed_and_has_a_bar_for_each_figure() -> None:
    root = ET.fromstring(plot(results()))
    bars = root.findall("{http://www.w3.org/2000/svg}rect")
    assert len(bars) == 1 + 4 * 5
    texts = [element.text for element in root.findall("{http://www.w3.org/2000/svg}text")]
    assert texts.count("not offered") == 2


def test_the_bench_is_read_in_seconds() -> None:
    stages = ("vision", "projector", "prefill", "decode_step", "total")
    workload: dict[str, Any] = {name: {"median": 1000.0 * index} for index, name in enumerate(stages, 1)}
    workload["prompt_tokens"] = 1919
    placement = {"decoder": {"kernels": "avx2"}}
    report = {"library": "L", "placement": placement, "load": 500.0, "workloads": [workload, workload]}
    report |= {"load_peak_memory_bytes": 3}
    found = figures(report, 3.5)
    assert (found["load"], found["vision"], found["step"], found["beam_call"]) == (0.5, 3.0, 4.0, 5.0)
    assert found["peak_memory"] == 3
    assert summary([found])["beam_ratio"] == 1


def test_a_task_survives_its_file_and_prompts_differ(tmp_path: Path) -> None:
    task = Task("language", "vision", "converted", **SIZES, **ASKED)  # type: ignore[arg-type]
    task.write(tmp_path / "task.json")
    assert Task.read(tmp_path / "task.json") == task
    assert len(task.prompt(0)) == 1919
    assert task.prompt(0) == task.prompt(0) != task.prompt(1)
    assert max(task.prompt(0)) < task.plain_tokens


def test_lenders_of_environments_come_first() -> None:
    assert [engine.name for engine in environments_for(["openvino", "llama_cpp"])] == [
        "transformers",
        "openvino",
        "llama_cpp",
    ]


def test_the_command_line_names_engines_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert read_settings(["--peers", "openvino llama_cpp"]).engines == ["vintern", "openvino", "llama_cpp"]
    assert read_settings(["--peers", "openvino", "--no-vintern"]).engines == ["openvino"]
    with pytest.raises(SystemExit):
        read_settings(["--peers", "nothing"])
    assert "no such engine: nothing" in capsys.readouterr().err


def test_a_program_that_fails_says_why(tmp_path: Path) -> None:
    program = "import sys; print(1); print('gone wrong', file=sys.stderr); sys.exit(3)"
    with pytest.raises(FailedError, match=r"(?s)code 3.*gone wrong"):
        run([sys.executable, "-c", program], tmp_path / "log")
    with pytest.raises(FailedError, match="cannot be started"):
        run([tmp_path / "nothing"], tmp_path / "log")
    outcome = run([sys.executable, "-c", "print('{\"a\": 1}')"], tmp_path / "log")
    assert outcome.json() == {"a": 1}
    assert outcome.peak_memory > 1 << 20


def test_plain_tokens_end_where_added_ones_or_none_are() -> None:
    vocabulary = {"a": 0, "b": 1, "<x>": 2, "<y>": 9}
    assert plain_tokens({"model": {"vocab": vocabulary}, "added_tokens": [{"id": 2}, {"id": 9}]}) == 2
    assert plain_tokens({"model": {"vocab": {"a": 0, "c": 2}}, "added_tokens": []}) == 1
