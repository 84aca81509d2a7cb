"""Answers an interrupt while the command ``fo-onnx`` still loads, with one line instead of a traceback of imports.

`fo_onnx.__main__` calls this before it imports anything that takes long.
"""

import os
import signal

INTERRUPTED = 130
_SIGNALS = {
    getattr(signal, name): default
    for name, default in (
        ("SIGINT", signal.default_int_handler),
        ("SIGTERM", signal.SIG_DFL),
        ("SIGHUP", signal.SIG_DFL),
    )
    if hasattr(signal, name)
}
"""Each with its handler if nobody has changed it; a signal that is ignored stays ignored."""
_is_command = False


def answer_interrupts() -> None:
    """Let each signal end this process, which is the command, with a line on standard error and exit code 130."""
    global _is_command
    _is_command = True
    for number, default in _SIGNALS.items():
        if signal.getsignal(number) == default:
            signal.signal(number, _end)


def hand_over() -> None:
    """Put back the default handlers, since the command itself answers signals from now on."""
    for number, default in _SIGNALS.items():
        if signal.getsignal(number) is _end:
            signal.signal(number, default)


def owns_process() -> bool:
    """Return whether this process is the command, and not a program that calls it."""
    return _is_command


def _end(number: int, frame: object) -> None:
    os.write(2, b"fo-onnx: interrupted.\n")
    # There is nothing to clean up yet, and an exception could be taken for a failed import.
    os._exit(INTERRUPTED)
