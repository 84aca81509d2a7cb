"""The large weights of a JAX function, kept out of the TensorFlow graph.

jax2tf writes what a function closes over into the graph, whose serialised form ends at 2 GiB. Arguments that are TensorFlow tensors
from outside of the graph stay outside.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..jaxpr.weight_arguments import split_weights

SMALL_BYTES = 1_000_000
"""Size up to which weights may stay in the graph."""


def split_large_weights(
    function: Callable[..., Any], arguments: Sequence[Any], least_bytes: int
) -> tuple[Callable[..., Any], list[NDArray[Any]]]:
    """Return a function of its larger weights, as a list, and its arguments; and these weights.

    Args:
        function: A function over arrays that returns one.
        arguments: ShapeDtypeStructs in the dtypes and shapes of its arguments; sizes may be symbolic.
        least_bytes: The size of all weights from which on they are a burden; below it none is split off.
    """
    _, weights = split_weights(function, arguments)
    burden = sum(map(_size_bytes, weights)) >= least_bytes
    places = [i for i, w in enumerate(weights) if burden and _is_plain(w) and _size_bytes(w) >= SMALL_BYTES]

    def over_weights(large_weights: Sequence[Any], *arrays: Any) -> Any:
        # Traced anew in each call, since symbolic sizes are those of one conversion; the weights come in the same order.
        step, all_weights = split_weights(function, arrays)
        for place, weight in zip(places, large_weights, strict=True):
            all_weights[place] = weight
        return step(all_weights, *arrays)

    return over_weights, [np.asarray(weights[i]) for i in places]


def _is_plain(weight: Any) -> bool:
    """Return whether TensorFlow and ONNX Runtime calculate with a weight: not with bfloat16 and keys of random numbers."""
    return np.dtype(getattr(weight.dtype, "type", object)).kind in "fiub"


def _size_bytes(weight: Any) -> int:
    return int(np.size(weight)) * int(weight.dtype.itemsize)
