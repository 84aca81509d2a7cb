"""Processes that tests send signals to."""

from __future__ import annotations

import signal
import subprocess
from typing import Any


def start(command: list[str], **more: Any) -> subprocess.Popen[str]:
    """A process that heeds Ctrl-C also where the tests' own shell made them ignore it, as it does in the background."""
    heed = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)  # noqa: E731
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, preexec_fn=heed, **more)
