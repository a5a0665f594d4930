from pathlib import Path

import pytest

from support import golden
from support.runtime import Package
from vintern_export.package import ExportOptions, export_package


def export(checkpoint: Path, out: Path, options: ExportOptions | None = None) -> Package:
    """Exports and opens the package; any warning is an error."""
    export_package(checkpoint, out, checkpoint.name, options or ExportOptions(), pytest.fail)
    return Package(out)


@pytest.fixture(scope="session")
def packages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Package]:
    """The two golden checkpoints in fp32. Tests do not change them."""
    folder = tmp_path_factory.mktemp("packages")
    return {name: export(golden.checkpoint(name), folder / name) for name in ("ckpt_a", "ckpt_b")}
