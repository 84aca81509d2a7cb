"""What tells one JAX model from another across processes: its code and everything that it holds, down to each weight.

The walk is the core's; here is told what JAX's, flax' and equinox' own objects consist of. Ids, addresses, states of traces
and caches must not enter, since they are others in each process, or after the model has run.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any

import jax
import numpy as np
from jax._src import core

from fo_onnx import digests

from .models import kind_of
from .references import PACKAGES, is_array, is_nnx_variable, value_of, within_jit

_SWITCHES = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion")
_OF_TRACES = ("_pytree__*", "_object__*", "_flax*")
"""Attributes in which flax keeps states of traces, and what it found out of a class."""
_OF_TRAINING = ("tx", "opt_state", "step")
"""Of a TrainState the optimizer, its state, and the number of steps say nothing of what the model gives."""
_ADDRESS = re.compile(r" at 0x[0-9a-f]+")


def fingerprint(model: Any) -> str:
    """sha256 over the code and the values of a model; equal across processes, and after the model has run.

    JAX's switches by which the same code computes something else belong to it.
    """
    digest = hashlib.sha256()
    switches = tuple(getattr(jax.config, name, None) for name in _SWITCHES)
    for part in digests.of_object([switches, model], _leaf, _OF_TRACES):
        digest.update(part)
    return digest.hexdigest()


def _leaf(value: Any, walk: digests.Walk) -> Iterator[bytes] | None:
    """What is told of the objects of JAX and of its libraries."""
    if isinstance(value, type):
        return None
    if is_array(value):
        return _of_array(value)
    if isinstance(value, jax.tree_util.PyTreeDef):
        return walk([value.node_data(), *value.children()])
    if isinstance(value, core.ClosedJaxpr):
        return chain(walk(value.jaxpr), walk(value.consts))
    if isinstance(value, core.Jaxpr):
        return _of_jaxpr(value, walk)
    wrapped = getattr(value, "__wrapped__", None)
    if within_jit(value) is not None or (wrapped is not None and type(value).__module__.startswith("jaxlib.")):
        # A jitted function keeps its caches beside the function that it wraps.
        return walk(wrapped)
    if isinstance(value, Mapping) and type(value).__module__.partition(".")[0] in PACKAGES:
        # FrozenDict and FlatMapping keep their hash, which is another in each process, once they were asked for it.
        return walk(dict(value))
    fields = _fields(value)
    return None if fields is None else chain(walk(type(value)), walk(fields))


def _of_array(array: Any) -> Iterator[bytes]:
    if jax.numpy.issubdtype(array.dtype, jax.dtypes.prng_key):
        yield str(jax.random.key_impl(array)).encode()
        array = jax.random.key_data(array)
    yield from digests.of_array(np.asarray(array))


def _of_jaxpr(jaxpr: Any, walk: digests.Walk) -> Iterator[bytes]:
    """A jaxpr by its text, and what the text leaves out: constants of the jaxprs within it, and Python's callbacks."""
    yield _ADDRESS.sub("", str(jaxpr)).encode()
    for equation in jaxpr.eqns:
        for name, held in sorted(equation.params.items()):
            several = held if isinstance(held, tuple | list) else (held,)
            if name == "callback" or any(isinstance(h, core.Jaxpr | core.ClosedJaxpr) for h in several):
                yield from walk(held)


def _fields(value: Any) -> dict[str, Any] | None:
    """The parts of a module, or of what holds its variables, by name; ``None`` of other objects, which their attributes tell."""
    kind = kind_of(value)
    if kind == "linen":
        # Not what the others hold: links to parents and states of traces.
        own = {f.name: getattr(value, f.name) for f in dataclasses.fields(value) if f.name != "parent"}
        return own if value.scope is None else {**own, "variables": value.variables}
    if kind == "state":
        return {n: part for n, part in sorted(digests.attributes_of(value).items()) if n not in _OF_TRAINING}
    if kind == "graphdef":
        # Its text is of types, names and numbers of nodes, which flax gives by their order.
        held = [getattr(held, "value", None) for _, held in value.attributes]
        return {"text": _ADDRESS.sub("", repr(value)), "held": held}
    if is_nnx_variable(value):
        return {"value": value_of(value), "metadata": value.get_metadata()}
    return None
