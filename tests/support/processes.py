"""Processes that tests send signals to."""

from __future__ import annotations

import signal
import subprocess
from typing import Any


def start(command: list[str], **more: Any) -> subprocess.Popen[str]:
    """Start a process that heeds signals also where the tests' own shell ignores them (in the background, under nohup)."""

    def heed() -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)

    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed, **more)
