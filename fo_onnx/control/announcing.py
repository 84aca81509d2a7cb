"""Says what is being done while there is nothing to show yet: in the log always, on standard error if it is a terminal."""

from __future__ import annotations

import logging
import sys

from ..guards.printable import escaped

log = logging.getLogger("fo_onnx.engine")


def announce(step: str, show: bool | None = None) -> None:
    """Say what is being done now.

    Args:
        step: A phrase, such as ``"exporting Net from torch to ONNX"``.
        show: Whether it is shown on standard error; ``None`` shows it if that is a terminal. As ``progress=`` of `fo_onnx.generate`.
    """
    log.info("%s", step)
    if is_shown(show):
        # Names of models may come from files.
        print(f"fo-onnx: {escaped(step)} …", file=sys.stderr, flush=True)


def is_shown(show: bool | None) -> bool:
    """Return whether progress is shown: as it was said, else if standard error is a terminal."""
    return sys.stderr.isatty() if show is None else show
