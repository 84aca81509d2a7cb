"""Warnings at the line that called this package, above all the one that the native runner stands in for ONNX."""

from __future__ import annotations

import contextlib
import sys
import warnings
from pathlib import Path

from ..errors import FallbackWarning
from ..guards.printable import escaped

# Context managers put a frame of contextlib between two of this package.
_PASSED_OVER = (str(Path(__file__).parents[1]), contextlib.__file__)


def warn_of_fallback(message: str) -> None:
    """Warn with a `FallbackWarning` that points to the innermost line outside of this package."""
    warn_at_caller(message, FallbackWarning)


def warn_at_caller(message: str, category: type[Warning]) -> None:
    """Warn with a warning that points to the innermost line outside of this package.

    Python 3.12 has ``skip_file_prefixes`` for this.
    """
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_PASSED_OVER):
        level, frame = level + 1, frame.f_back
    warnings.warn(escaped(message), category, level)
