"""What tells one JAX model from another across processes: its code and everything that it holds, down to each weight.

Neither ids nor addresses nor the caches of tracing may enter, so nothing is digested by its ``repr`` or its pickle; each kind
of value says here what it consists of. Of what is installed (jax, flax, the standard library) a name stands for the code.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
import inspect
import re
from collections import deque
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import jax
import numpy as np

from fo_onnx import digests

from .models import kind_of
from .references import (
    attributes_of,
    is_array,
    is_library,
    is_nnx_variable,
    references,
    value_of,
    within_jit,
)

_NAMED = (ModuleType, BuiltinFunctionType, np.ufunc)
_DEEPEST = 50
_MOST = 1_000_000
"""So many objects are told whole; of further ones the type."""
_TEXTS = (np.dtype, PurePath, range, slice, enum.Enum)
"""What its text tells whole."""


_SWITCHES = ("jax_enable_x64", "jax_default_matmul_precision", "jax_numpy_dtype_promotion", "jax_numpy_rank_promotion")


def fingerprint(model: Any) -> str:
    """sha256 over the code and the values of a model; equal across processes, and after the model has run.

    JAX's switches by which the same code computes something else belong to it.
    """
    walk = _Walk()
    walk.add([getattr(jax.config, name, None) for name in _SWITCHES])
    walk.add(model)
    walk.finish()
    return walk.digest.hexdigest()


class _Walk:
    """A walk through everything that a model holds; what was met before is told by when it was."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._depth = 0
        self._later: deque[Any] = deque()
        self._met: dict[int, tuple[int, Any]] = {}  # beside its number the value, so that no id is given twice

    def add(self, value: Any) -> None:
        if isinstance(value, digests.PLAIN):
            self._say("plain", digests.of_constant(value))
            return
        if id(value) in self._met:
            self._say("again", str(self._met[id(value)][0]))
            return
        self._met[id(value)] = (len(self._met), value)
        if self._depth >= _DEEPEST:
            self._say("later")
            self._later.append(value)
            return
        self._depth += 1
        self._whole(value)
        self._depth -= 1

    def finish(self) -> None:
        """Adds what lay too deep for Python's stack."""
        while self._later:
            self._whole(self._later.popleft())

    def _whole(self, value: Any) -> None:
        self._say(_type_name(type(value)))
        if len(self._met) < _MOST:
            self._add_new(value)
        self._say("end")

    def _say(self, *texts: str | bytes) -> None:
        for text in texts:
            found = text.encode() if isinstance(text, str) else text
            # The length first, so that no two rows of texts are one.
            self.digest.update(f"{len(found)}:".encode() + found)

    def _add_new(self, value: Any) -> None:
        if is_array(value) or isinstance(value, np.ndarray | np.generic):
            self._array(value)
        elif isinstance(value, Mapping):
            # In their order: JAX sorts the keys of its arguments, but code may go through a dict.
            for key, part in value.items():
                self._key(key)
                self.add(part)
            self._of_subclass(value)
        elif isinstance(value, list | tuple | deque):
            for item in value:
                self.add(item)
            self._of_subclass(value)
        elif isinstance(value, set | frozenset):
            self._say(*sorted(fingerprint(v) for v in value))
            self._of_subclass(value)
        elif isinstance(value, type):
            self._class(value)
        elif isinstance(value, _NAMED):
            self._say(_name(value))
        elif isinstance(value, _TEXTS):
            self._say(str(value))
        elif isinstance(value, functools.partial):
            self.add((value.func, value.args, value.keywords))
        elif isinstance(value, MethodType):
            self.add((value.__func__, value.__self__))
        elif isinstance(value, staticmethod | classmethod):
            self.add(value.__func__)
        elif isinstance(value, property):
            self.add((value.fget, value.fset))
        elif isinstance(value, FunctionType):
            self._function(value)
        else:
            self._object(value)

    def _key(self, key: Any) -> None:
        # Constants that are equal are one object in one process and two in another.
        is_plain = isinstance(key, tuple) and all(isinstance(k, digests.PLAIN) for k in key)
        if is_plain:
            self._say(digests.of_constant(key))
        else:
            self.add(key)

    def _of_subclass(self, value: Any) -> None:
        """Of a container of a class of its own, that class and its attributes."""
        if type(value).__module__ not in ("builtins", "collections"):
            self.add(type(value))
            self._items([(n.encode(), part) for n, part in sorted(attributes_of(value).items(), key=itemgetter(0))])

    def _array(self, value: Any) -> None:
        import jax

        if is_array(value) and jax.numpy.issubdtype(value.dtype, jax.dtypes.prng_key):
            self._say(str(jax.random.key_impl(value)))
            value = jax.random.key_data(value)
        array = np.asarray(value)
        self._say(f"{array.dtype}{array.shape}")
        if array.dtype == object:
            self.add(array.tolist())
        else:
            # As bytes without a copy; a memoryview would not know the types of ml_dtypes.
            self.digest.update(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)

    def _items(self, items: list[tuple[bytes, Any]]) -> None:
        for name, value in items:
            self._say(name)
            self.add(value)

    def _function(self, function: FunctionType) -> None:
        self._say(function.__module__ or "", function.__qualname__)
        self._say(*digests.of_code(function.__code__))
        self._items([(name.encode(), value) for name, value in references(function)])

    def _class(self, kind: type) -> None:
        self._say(_type_name(kind))
        if is_library(kind.__module__):
            return
        for name, value in sorted(vars(kind).items()):
            # Python's and flax's own entries tell nothing of the class, or hold caches; its functions do.
            if not name.startswith(("__", "_abc_", "_pytree__", "_flax", "_weak")) or isinstance(value, FunctionType):
                self._say(name)
                self.add(value)
        for base in kind.__bases__:
            self.add(base)

    def _object(self, value: Any) -> None:
        wrapped = getattr(value, "__wrapped__", None)
        if within_jit(value) is not None or (wrapped is not None and type(value).__module__.startswith("jaxlib.")):
            # A jitted function keeps its caches beside the function that it wraps.
            self.add(wrapped)
            return
        self.add(type(value))
        self._items([(name.encode(), part) for name, part in _fields(value)])


def _fields(value: Any) -> Iterator[tuple[str, Any]]:
    """The parts of an object by name, without those that are links to parents, states of traces, or caches."""
    kind = kind_of(value)
    if kind == "linen":
        yield from ((f.name, getattr(value, f.name)) for f in dataclasses.fields(value) if f.name != "parent")
        if value.scope is not None:
            yield "variables", value.variables
        return
    if kind == "state":
        # The optimizer and its state, and the number of steps, say nothing of what the model gives.
        more = {n: p for n, p in attributes_of(value).items() if n not in ("tx", "opt_state", "step")}
        yield from sorted(more.items())
        return
    if kind == "graphdef":
        # Its text is of types, names and numbers of nodes, which flax gives by their order.
        yield "text", _ADDRESS.sub("", repr(value))
        yield "held", [getattr(held, "value", None) for _, held in value.attributes]
        return
    if is_nnx_variable(value):
        yield "value", value_of(value)
        yield "metadata", value.get_metadata()
        return
    if type(value).__module__.partition(".")[0] in _INERT:
        return
    for name, part in sorted(attributes_of(value).items(), key=itemgetter(0)):
        is_cached = isinstance(inspect.getattr_static(type(value), name, None), functools.cached_property)
        if not is_cached and not name.startswith(("_pytree__", "_object__")):
            yield name, part


_ADDRESS = re.compile(r" at 0x[0-9a-f]+")
_INERT = (
    "logging",
    "threading",
    "weakref",
    "asyncio",
    "concurrent",
    "multiprocessing",
    "contextvars",
    "io",
    "importlib",
)
"""Modules whose objects are of the process and not of the model."""


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _type_name(kind: type) -> str:
    # A class in a script is of __main__ here, and of its file's name where it is imported.
    module = "" if kind.__module__ == "__main__" else kind.__module__
    return f"{module}.{kind.__qualname__}"
