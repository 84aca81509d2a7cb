"""The wheel holds everything that is needed: built, unpacked elsewhere, and run in an empty folder.

In an editable install packages can be imported by accident that no wheel has.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


def run(command, folder, **environment):
    done = subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with what the wheel installs, and nothing else."""
    folder = tmp_path_factory.mktemp("wheel")
    run(["-m", "build", "--wheel", "--no-isolation", "--outdir", str(folder), str(ROOT)], folder)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_what_is_in_it(site):
    found = {p.name for p in site.iterdir() if not p.name.endswith(".dist-info")}
    assert found == {
        "fo_onnx", "fo_onnx_torch", "fo_onnx_keras", "fo_onnx_jax", "fo_onnx_tensorflow", "fo_onnx_sklearn",
    }  # fmt: skip
    assert all((site / name / "py.typed").exists() for name in found)
    assert list(site.glob("*.dist-info/licenses/LICENSE"))


@pytest.mark.slow
def test_the_demo_runs_from_it_in_an_empty_folder(site, tmp_path):
    where = run(
        ["-c", "import fo_onnx, fo_onnx_torch; print(fo_onnx.__file__, fo_onnx_torch.__file__)"],
        tmp_path,
        PYTHONPATH=str(site),
    )
    assert all(Path(p).is_relative_to(site) for p in where.split())
    run(["-m", "fo_onnx", "demo", "--json"], tmp_path, PYTHONPATH=str(site))
    assert [p.name for p in tmp_path.iterdir()] == ["demo"]
    made = {p.name for p in (tmp_path / "demo").iterdir()}
    assert {"digits.onnx", "train.parquet", "train.json", "held-out.parquet", "held-out.json"} <= made
    held_out = json.loads((tmp_path / "demo" / "held-out.json").read_text())
    assert len(held_out["distributions"]) == 360
    assert held_out["meta"]["metrics"]["accuracy"] > 0.95
