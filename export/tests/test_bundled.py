"""The package the repository ships is what the exporter makes of the checkpoint beside it."""

from pathlib import Path

from vintern_export.cli import main

MODELS = Path(__file__).resolve().parents[2] / "models"
CARD = {"README.md", "curves.png"}
LIMIT = 16 * 1024 * 1024


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_exporting_the_checkpoint_again_gives_the_package_byte_for_byte(tmp_path: Path) -> None:
    package = tmp_path / "vintern-tiny"
    assert main([str(MODELS / "checkpoints/vintern-tiny"), str(package), "--precision", "fp16"]) == 0
    made, shipped = content(package), content(MODELS / "vintern-tiny")
    assert made.keys() == shipped.keys() - CARD
    assert [name for name in made if made[name] != shipped[name]] == []


def test_checkpoint_and_package_are_small() -> None:
    for folder in ("checkpoints/vintern-tiny", "vintern-tiny"):
        assert sum(map(len, content(MODELS / folder).values())) <= LIMIT
