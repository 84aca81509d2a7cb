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


def find_large_weights(
    function: Callable[..., Any], arguments: Sequence[Any], least_bytes: int
) -> dict[int, NDArray[Any]]:
    """Return the larger weights of a function, by their place among all, if all have at least `least_bytes`; else none.

    Args:
        function: A function over arrays that returns one.
        arguments: ShapeDtypeStructs in the dtypes and shapes of its arguments; sizes may be symbolic.
        least_bytes: The size from which on the weights are a burden.
    """
    _, weights = split_weights(function, arguments)
    if sum(map(_size_bytes, weights)) < least_bytes:
        return {}
    # TensorFlow and ONNX Runtime do not calculate with bfloat16 and keys of random numbers.
    plain = {i: w for i, w in enumerate(weights) if np.dtype(getattr(w.dtype, "type", object)).kind in "fiub"}
    return {i: np.asarray(w) for i, w in plain.items() if _size_bytes(w) >= SMALL_BYTES}


def take_weights_as_arguments(function: Callable[..., Any], places: Sequence[int]) -> Callable[..., Any]:
    """Return `function` that takes the weights at these places as a list, before its own arguments.

    It is traced anew in each call, since symbolic sizes are those of one conversion; its weights come in the same order.
    """

    def over_weights(large_weights: Sequence[Any], *arrays: Any) -> Any:
        step, weights = split_weights(function, arrays)
        for place, weight in zip(places, large_weights, strict=True):
            weights[place] = weight
        return step(weights, *arrays)

    return over_weights


def _size_bytes(weight: Any) -> int:
    return int(np.size(weight)) * int(weight.dtype.itemsize)
