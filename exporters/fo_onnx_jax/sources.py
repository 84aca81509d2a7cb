"""JAX arrays as sources of rows, for models of any framework."""

from __future__ import annotations

import sys
from itertools import islice
from typing import Any

import numpy as np

from fo_onnx.contracts.batch import Array
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.errors import DataError
from fo_onnx.sources.nested import as_array, leaves
from fo_onnx.sources.opening import open_builtin


class JaxSources:
    """Opens JAX arrays, alone and in tuples, lists and dicts, such as ``(x, y)`` or a list of samples."""

    name = "jax"

    def accepts(self, data: Any) -> bool:
        """Return whether `data` is, or holds, arrays of JAX. Never imports jax."""
        jax = sys.modules.get("jax")
        if jax is None or not hasattr(jax, "Array"):
            return False
        if isinstance(data, jax.Array):
            return True
        if not isinstance(data, list | tuple | dict):
            return False
        # The samples of a long list are alike.
        sample = data[:1] if isinstance(data, list) else data
        return any(isinstance(leaf, jax.Array) for leaf in islice(leaves(sample), 100))

    def open(self, data: Any, options: DataOptions) -> Source:
        """Return the rows of `data`, without a copy of arrays on the CPU.

        Raises:
            DataError: There are keys of random numbers among them, or arrays that were donated.
        """
        return open_builtin(data, options, to_array)


def to_array(leaf: Any) -> Array:
    """Return an array of JAX, or anything else that numpy understands, as a numpy array.

    It shares the memory of an array on one CPU device. One that is spread over devices is gathered. The floats that numpy lacks
    (bfloat16 and those of 8 bits) become float32, 4-bit integers int8 and uint8.

    Raises:
        DataError: It is a key of random numbers, was donated or deleted, or is partly on other machines.
    """
    import jax

    if not isinstance(leaf, jax.Array):
        return as_array(leaf)
    if jax.numpy.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        raise DataError(
            f"an array of the data holds keys of random numbers ({leaf.dtype}), which no row of a dataset is. Leave it out with "
            "input_getter=, or give jax.random.key_data(keys) if the numbers are meant."
        )
    if leaf.is_deleted():
        raise DataError(
            f"an array of the data, {leaf.dtype} {leaf.shape}, was donated to a jitted function or deleted. Give one that is still there: "
            "make it anew, or call the function without donate_argnums."
        )
    if not leaf.is_fully_addressable:
        raise DataError(
            f"an array of the data, {leaf.dtype} {leaf.shape}, is spread over several processes. Gather it first, with "
            "jax.experimental.multihost_utils.process_allgather(x, tiled=True)."
        )
    array = np.asarray(leaf)
    if array.dtype.kind in "biufc":
        return array
    # The types of ml_dtypes, which numpy knows by name alone.
    name = array.dtype.name
    return array.astype(np.uint8 if name.startswith("uint") else np.int8 if name.startswith("int") else np.float32)
