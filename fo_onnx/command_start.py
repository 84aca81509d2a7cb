"""An interrupt while the command ``fo-onnx`` still loads: one line, no traceback of imports.

The first import of the package. It does nothing unless this process is the command.
"""

import os
import signal
import sys
from itertools import pairwise
from pathlib import PurePath
from types import FrameType

INTERRUPTED = 130


def is_command() -> bool:
    """Whether this process is ``fo-onnx`` or ``python -m fo_onnx``, and not one that it started."""
    script = (getattr(sys, "argv", None) or [""])[0]
    words = sys.orig_argv
    if script == "-m":  # as it is while the package is imported
        return ("-m", "fo_onnx") in pairwise(words)
    return PurePath(script).stem == "fo-onnx" and script in words


def over() -> None:
    """Interrupts are heard as KeyboardInterrupt from now on, since the command itself answers them."""
    if signal.getsignal(signal.SIGINT) is _end:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def _end(number: int, frame: FrameType | None) -> None:
    os.write(2, b"fo-onnx: interrupted.\n")
    # There is nothing to clear up yet, and an exception could be taken for a failed import.
    os._exit(INTERRUPTED)


if is_command() and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
    signal.signal(signal.SIGINT, _end)
