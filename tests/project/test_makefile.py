"""`make clean` removes what the Makefile's targets make, and nothing that a user has there."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

MAKEFILE = Path(__file__).parents[2] / "Makefile"

pytestmark = pytest.mark.skipif(not MAKEFILE.exists() or shutil.which("make") is None, reason="needs make")


def make(folder: Path, target: str) -> subprocess.CompletedProcess[str]:
    shutil.copy(MAKEFILE, folder / "Makefile")
    return subprocess.run(["make", target], cwd=folder, capture_output=True, text=True, timeout=60)


def put(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("x")


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()} - {"Makefile"}


def test_clean_removes_what_was_made(tmp_path):
    put(tmp_path, ".venv/.made", ".venv/bin/python", "demo/digits.onnx", "demo/train.json", "dist/fo_onnx-0.1.0.tar.gz")
    assert make(tmp_path, "clean").returncode == 0
    assert {p.name for p in tmp_path.iterdir()} == {"Makefile"}


def test_clean_leaves_what_is_a_users(tmp_path):
    own = [".venv/bin/python", "demo/thesis.tex", "dist/other-1.0.tar.gz", "build/x", "demo/sub/digits.onnx"]
    put(tmp_path, *own, "demo/held-out.parquet")
    assert make(tmp_path, "clean").returncode == 0
    assert names(tmp_path) == set(own)


def test_clean_of_nothing(tmp_path):
    assert make(tmp_path, "clean").returncode == 0


def test_an_environment_of_the_users_is_not_taken_over(tmp_path):
    put(tmp_path, ".venv/bin/python")
    result = make(tmp_path, ".venv/.made")
    assert result.returncode != 0
    assert ".venv is there, and no target of this Makefile made it" in result.stdout
    assert names(tmp_path) == {".venv/bin/python"}
