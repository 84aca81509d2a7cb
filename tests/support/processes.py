"""Processes that tests send signals to."""

from __future__ import annotations

import signal
import subprocess
import time
from pathlib import Path
from typing import Any


def start(command: list[str], **more: Any) -> subprocess.Popen[str]:
    """Start a process that heeds signals also where the tests' own shell ignores them (in the background, under nohup)."""

    def heed() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed, **more)


def wait_for_run(out: Path, *, within_s: float = 60) -> None:
    """Wait until the run that writes `out` has begun, however busy the machine is, and has had a second for its first rows."""
    deadline = time.monotonic() + within_s
    while not Path(f"{out}.partial", "run.json").exists():
        assert time.monotonic() < deadline, f"no run has begun at {out}"
        time.sleep(0.02)
    time.sleep(1)
