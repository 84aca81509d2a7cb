"""An interrupt while the command ``fo-onnx`` still loads: one line, no traceback of imports.

The first import of the package, which itself imports little: until then an interrupt is a traceback. It does nothing unless
this process is the command.
"""

import os
import signal
import sys
from itertools import pairwise

INTERRUPTED = 130
_SIGNALS = {
    getattr(signal, name): before
    for name, before in (
        ("SIGINT", signal.default_int_handler),
        ("SIGTERM", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
    )
    if hasattr(signal, name)
}
"""Each with what it does where nobody has changed that; what was told to be ignored stays ignored."""


def is_command() -> bool:
    """Whether this process is ``fo-onnx`` or ``python -m fo_onnx``, and not one that it started."""
    script = (getattr(sys, "argv", None) or [""])[0]
    words = sys.orig_argv
    if script == "-m":  # as it is while the package is imported
        return ("-m", "fo_onnx") in pairwise(words)
    return os.path.splitext(os.path.basename(script))[0] == "fo-onnx" and script in words


def over() -> None:
    """Signals do what they did before, since the command itself answers them from now on."""
    for number, before in _SIGNALS.items():
        if signal.getsignal(number) is _end:
            signal.signal(number, before)


def _end(number: int, frame: object) -> None:
    os.write(2, b"fo-onnx: interrupted.\n")
    # There is nothing to clear up yet, and an exception could be taken for a failed import.
    os._exit(INTERRUPTED)


COMMAND = is_command()
"""Whether this process is the command, as it was called."""

if COMMAND:
    for _number, _before in _SIGNALS.items():
        if signal.getsignal(_number) == _before:
            signal.signal(_number, _end)
