"""Says what is being done while there is nothing to show yet: in the log always, on standard error if it is a terminal."""

from __future__ import annotations

import logging
import sys

log = logging.getLogger("fo_onnx.engine")


def announce(step: str, show: bool | None = None) -> None:
    """Say what is being done now.

    Args:
        step: A phrase, such as ``"exporting Net from torch to ONNX"``.
        show: Whether it is shown on standard error; ``None`` shows it if that is a terminal. As ``progress=`` of `fo_onnx.generate`.
    """
    log.info("%s", step)
    if show or (show is None and sys.stderr.isatty()):
        print(f"fo-onnx: {step} …", file=sys.stderr, flush=True)
