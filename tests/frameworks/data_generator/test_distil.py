"""The example of distillation: soft targets calibrate the student, whatever the seed."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
EXAMPLE = Path(__file__).parents[3] / "examples" / "distil.py"


@pytest.mark.parametrize("seed", [0, pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow)])
def test_soft_targets_halve_the_calibration_error(seed: int) -> None:
    done = subprocess.run(
        [sys.executable, EXAMPLE, "--seed", str(seed)], capture_output=True, text=True, check=False, timeout=200
    )
    assert done.returncode == 0, done.stderr
    scores = re.search(r"calibration error: ([\d.]+) with hard labels, ([\d.]+) with soft targets", done.stdout)
    assert scores is not None, done.stdout
    assert float(scores[2]) < 0.5 * float(scores[1])
