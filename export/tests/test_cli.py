import re
import sys
from pathlib import Path

import huggingface_hub
import pytest
from huggingface_hub.errors import LocalEntryNotFoundError

from support import golden
from vintern_export import hub
from vintern_export.cli import main
from vintern_export.errors import EnvironmentFailureError, UsageError
from vintern_export.progress import progress_bar


def run(capsys: pytest.CaptureFixture[str], *words: object) -> tuple[int, str, str]:
    try:
        code = main([str(word) for word in words])
    except SystemExit as exit_:
        code = int(exit_.code or 0)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


@pytest.mark.parametrize("words", [["--help"], ["export", "--help"], ["synth", "--help"], ["verify", "--help"]])
def test_help(capsys: pytest.CaptureFixture[str], words: list[str]) -> None:
    code, out, _ = run(capsys, *words)
    assert code == 0
    assert out.startswith("usage: vintern-export")


def test_help_names_every_command_and_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = run(capsys, "--help")
    for text in ("synth SHAPE OUT", "verify OUT", "CHECKPOINT OUT", "exit codes: 0 done"):
        assert text in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x", "y", "--precision", "int2"], "argument --precision: invalid choice: 'int2'"),
        (["x", "y", "--precision", "int4", "--block-size", "48"], "argument --block-size: invalid choice: 48"),
        (["x", "y", "--precision", "int4", "--accuracy-level", "2"], "argument --accuracy-level: invalid choice: 2"),
        (["x", "y", "--variant", "plain"], "argument --variant: invalid choice: 'plain'"),
        (["x", "y", "--for", "migraphx"], "argument --for: invalid choice: 'migraphx'"),
        (["synth", "vintern-7b", "y"], "argument SHAPE: invalid choice: 'vintern-7b'"),
        (["synth", "tiny", "y", "--dtype", "int8"], "argument --dtype: invalid choice: 'int8'"),
        (["verify"], "required: OUT"),
        (["x"], "required: OUT"),
        (["no-such-folder", "y"], "no folder no-such-folder, and not a hub name"),
        ([golden.GOLDEN / "README.md", "y"], "is a file"),
        ([golden.checkpoint("ckpt_a"), "y", "--template", "vicuna"], "--template: found 'vicuna'; supported: Hermes-2"),
    ],
)
def test_wrong_usage(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                     words: list[object], message: str) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    code, _, err = run(capsys, *words)
    assert code == 2
    assert message in err
    assert not list(tmp_path.iterdir())


def test_export_with_and_without_its_name(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = golden.checkpoint("ckpt_b")
    assert run(capsys, source, tmp_path / "one")[0] == 0
    code, out, err = run(capsys, "export", source, tmp_path / "two", "--system", "xin chào", "--for", "cpu")
    assert (code, out) == (0, "")
    cost = r"\d+ s, \d+ MiB written, peak memory [\d.]+ [MG]iB"
    assert re.fullmatch(rf"exported ckpt_b to {re.escape(str(tmp_path / 'two'))}: {cost}\n", err)
    text = (tmp_path / "two" / "manifest.json").read_text(encoding="utf-8")
    assert '"system_message": "xin chào"' in text


def test_half_precision_for_the_cpu_is_warned_about(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    source = golden.checkpoint("ckpt_b")
    code, _, err = run(capsys, source, tmp_path / "one", "--precision", "fp16", "--for", "cpu")
    assert code == 0
    assert err.startswith("warning: float16 is meant for GPUs: on CPUs int8 and int4 packages are smaller and faster")


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["int8"], None),
        (["int4"], None),
        (["int4", "--block-size", "32"], None),
        (["int4", "--block-size", "16"], "4 bits in blocks of 16 and 8 bits in blocks of 128 at level 4"),
        (["int8", "--block-size", "32"], "8 bits in blocks of 32 at level 4"),
        (["int8", "--accuracy-level", "0"], "8 bits in blocks of 128 at level 0"),
    ],
)
def test_quantisation_without_kernels_is_warned_about(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, words: list[str], found: str | None
) -> None:
    code, _, err = run(capsys, golden.checkpoint("ckpt_b"), tmp_path / "package", "--precision", *words)
    assert code == 0
    assert err.startswith("warning: the runtime's kernels for CPUs take") == (found is not None)
    assert found is None or f"found {found}: ONNX Runtime's" in err


def test_a_block_size_that_is_the_default_changes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, words in {"default": [], "same": ["--block-size", "32"]}.items():
        assert run(capsys, golden.checkpoint("ckpt_b"), tmp_path / name, "--precision", "int4", *words)[0] == 0
    for file in ("manifest.json", "decoder.onnx"):
        assert (tmp_path / "default" / file).read_bytes() == (tmp_path / "same" / file).read_bytes()


def test_refusals_print_a_hint(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"architectures": ["InternVLChatModel"], "quantization_config": {"bits": 4}}'
    )
    code, _, err = run(capsys, tmp_path, tmp_path / "out")
    assert code == 2
    assert err.splitlines() == [
        'error: config.json quantization_config: found {"bits": 4}; supported: unquantised bf16, fp16 or fp32 weights',
        "hint: Export the checkpoint it was made from.",
    ]


def test_hub_names_are_downloaded_without_code_or_other_weights(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: dict[str, object] = {}

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        asked.update(name=name, patterns=allow_patterns)
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    monkeypatch.chdir(tmp_path)
    assert hub.resolve_checkpoint("5CD-AI/Vintern-3B-beta") == (tmp_path, "5CD-AI/Vintern-3B-beta")
    assert asked["patterns"] == ["*.json", "*.safetensors", "*.txt", "conversation.py"]


@pytest.mark.parametrize("error", [LocalEntryNotFoundError("offline"), ConnectionError("refused"), RuntimeError()])
def test_an_unreachable_hub_is_the_environments_fault(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def snapshot_download(*_: object, **__: object) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    with pytest.raises(EnvironmentFailureError, match="cannot download some/model"):
        hub.download("some/model")


def test_paths_are_not_mistaken_for_hub_names() -> None:
    for text in ("./a/b", "/a/b", "a/b/c", "../a"):
        with pytest.raises(UsageError):
            hub.resolve_checkpoint(text)


def test_progress_is_silent_without_a_terminal(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with progress_bar("label", 10) as advance:
        advance(10)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    with progress_bar("label", 10) as advance:
        advance(10)
    assert "label: 100%" in capsys.readouterr().err
