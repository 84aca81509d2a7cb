"""What tells one JAX model from another across processes: its code and everything that it holds, down to each weight.

Neither ids nor addresses nor the caches of tracing may enter, so nothing is digested by its ``repr`` or its pickle; each kind
of value says here what it consists of. Of what is installed (jax, flax, the standard library) a name stands for the code.
"""

from __future__ import annotations

import dataclasses
import enum
import functools
import hashlib
from collections.abc import Iterator, Mapping
from operator import itemgetter
from pathlib import PurePath
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from fo_onnx import digests

from .models import kind_of
from .references import (
    PACKAGES,
    attributes_of,
    is_array,
    is_library,
    is_nnx_variable,
    packages_of,
    references,
    value_of,
    within_filter_jit,
)

_NAMED = (ModuleType, BuiltinFunctionType, np.ufunc)
_TEXTS = (np.dtype, PurePath, range, slice, enum.Enum)
"""What its text tells whole."""


def fingerprint(model: Any) -> str:
    """sha256 over the code and the values of a model; equal across processes, and after the model has run."""
    walk = _Walk()
    walk.add(model)
    return walk.digest.hexdigest()


class _Walk:
    """A walk through everything that a model holds; what was met before is told by when it was."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self._met: dict[int, tuple[int, Any]] = {}  # beside its number the value, so that no id is given twice

    def add(self, value: Any) -> None:
        if isinstance(value, digests.PLAIN):
            self._say("plain", digests.of_constant(value))
            return
        if id(value) in self._met:
            self._say("again", str(self._met[id(value)][0]))
            return
        self._met[id(value)] = (len(self._met), value)
        self._say(_type_name(type(value)))
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
            # The order of keys has no meaning for JAX, which sorts them.
            self._items(sorted(((digests.of_constant(k), v) for k, v in value.items()), key=itemgetter(0)))
        elif isinstance(value, list | tuple):
            for item in value:
                self.add(item)
        elif isinstance(value, set | frozenset):
            self._say(*sorted(fingerprint(v) for v in value))
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
        if within_filter_jit(value) is not None or (wrapped is not None and not dataclasses.is_dataclass(value)):
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
        yield "text", repr(value)
        return
    if is_nnx_variable(value):
        yield "value", value_of(value)
        yield "metadata", value.get_metadata()
        return
    if dataclasses.is_dataclass(value) or not is_library(type(value).__module__) or packages_of(value) & {*PACKAGES}:
        for name, part in sorted(attributes_of(value).items(), key=itemgetter(0)):
            if not name.startswith(("_pytree__", "_object__")):
                yield name, part


def _name(value: Any) -> str:
    return f"{getattr(value, '__module__', '')}.{getattr(value, '__qualname__', getattr(value, '__name__', ''))}"


def _type_name(kind: type) -> str:
    # A class in a script is of __main__ here, and of its file's name where it is imported.
    module = "" if kind.__module__ == "__main__" else kind.__module__
    return f"{module}.{kind.__qualname__}"
