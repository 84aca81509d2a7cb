"""A digest that separates one JAX model from another, equal across processes and after the model has run."""

from __future__ import annotations

import re
from typing import Any

import jax
import numpy as np

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.plugin_kit import digests

from .detect import BoundModel
from .flat_function import attempt_trace, flatten
from .jaxpr.weight_arguments import trace
from .parameters import require_params
from .references import find_weights, unwrap

_SWITCHES = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion")
"""JAX's switches by which the same code computes something else."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(model: Any, example: Inputs | None = None) -> str:
    """Return a sha256 of a model's name, its program, its weights, and JAX's switches.

    The program is the text of the jaxpr, traced for two rows like those of `example`; the weights are its constants and the
    arrays that the model holds. A model that cannot be traced, and one without an example, has its own code in place of the
    program. Python functions that the program calls back are not looked into: who takes a cached export compares it with the
    model anyway.

    Args:
        model: The model.
        example: Rows, by the names of its inputs.

    Raises:
        ModelError: Its parameters are missing, or it holds a module in training mode.
    """
    closed = None
    if example is not None:
        function = flatten(model, example, ModelOptions(), OutputOptions())
        closed = attempt_trace(lambda *arrays: trace(function.all_outputs, arrays), function, example)
    model = require_params(model)
    if closed is None:
        program = list(digests.of_callable(model.inner if isinstance(model, BoundModel) else model))
        constants = []
    else:
        program = [_ADDRESS.sub("", str(closed.jaxpr)).encode()]
        constants = closed.consts
    # What else the model holds, in an order that no hash seed changes.
    known = set(map(id, constants))
    weights = find_weights(model.params if isinstance(model, BoundModel) else model)
    others = sorted(_digest_of_array(w) for w in weights if id(w) not in known)
    identity = f"{_qualified_name(model)} {[getattr(jax.config, switch, None) for switch in _SWITCHES]}".encode()
    return digests.sha256_of([identity, *program, *map(_digest_of_array, constants), *others])


def _digest_of_array(array: Any) -> bytes:
    implementation = ""
    if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        implementation = str(jax.random.key_impl(array))
        array = jax.random.key_data(array)
    return digests.sha256_of([implementation.encode(), *digests.of_array(np.asarray(array))]).encode()


def _qualified_name(model: Any) -> str:
    return digests.qualified_name(unwrap(model.model if isinstance(model, BoundModel) else model))
