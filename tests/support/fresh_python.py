"""Programs in a fresh interpreter, which finds the modules of the tests as this one does."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run_python(program: str, hash_seed: int = 0, timeout_s: float = 120) -> str:
    """Run a program and return what it prints; ``__name__`` of a test module can be imported there."""
    folders = [str(ROOT), os.environ["PYTHONPATH"]]
    environment = os.environ | {"PYTHONHASHSEED": str(hash_seed), "PYTHONPATH": os.pathsep.join(folders)}
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=timeout_s, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout
