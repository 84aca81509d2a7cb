"""The caller's own ``output_transform=``, which takes the head's place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from ..control.run_control import current
from ..distributions.probabilities import apply_head
from ..errors import OutputError

Floats = NDArray[np.float32]
Transform = Callable[[NDArray[Any]], NDArray[Any]]


def apply_transform(transform: Transform, raw: NDArray[Any], rows: int) -> Floats:
    """Return what an ``output_transform`` makes of a raw output, checked.

    Raises:
        OutputError: It gives no (rows, k) array of numbers.
        RunEnded: The run that this is called for is over.
    """
    try:
        with current().calling("the call of output_transform="):
            probs = np.asarray(transform(raw), dtype=np.float32)
    except Exception as err:
        raise OutputError(
            f"output_transform= failed on a raw output of shape {raw.shape}: {type(err).__name__}: {err}"
        ) from err
    if probs.ndim != 2 or len(probs) != rows:
        raise OutputError(
            f"output_transform= gave an array of shape {probs.shape} for a raw output of shape {raw.shape}; distributions of "
            f"shape ({rows}, classes) were expected."
        )
    return cast(Floats, apply_head(probs, "probs")[0])
