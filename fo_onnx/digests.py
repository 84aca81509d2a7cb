"""What tells one function or object from another across processes: code, constants, and what they hold, deeply."""

from __future__ import annotations

import functools
import inspect
import re
import sys
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from enum import Enum
from pathlib import PurePath
from types import CodeType
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAIN = (bool, int, float, complex, str, bytes, type(None))


def of_code(code: CodeType) -> Iterator[bytes]:
    """The bytecode of a function, its names and constants, and those of the functions within it."""
    yield code.co_code
    yield repr(code.co_names).encode()
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from of_code(constant)
        else:
            yield of_constant(constant)


def of_constant(value: Any) -> bytes:
    """A constant as bytes. A frozenset's own text follows the process's hash seed."""
    if isinstance(value, frozenset | set):
        return b"{" + b",".join(sorted(of_constant(v) for v in value)) + b"}"
    if isinstance(value, tuple | list):
        return b"(" + b",".join(of_constant(v) for v in value) + b")"
    return repr(value).encode()


Walk = Callable[[Any], "Iterator[bytes]"]
Leaf = Callable[[Any, Walk], "Iterator[bytes] | None"]
"""What a framework tells of its own objects (tensors, layers), with the way to go on into what they hold; ``None`` of
everything else."""


def of_object(value: Any, leaf: Leaf | None = None, names: Collection[str] = ()) -> Iterator[bytes]:
    """Everything that a value holds, deeply, as far as it is the same in another process.

    Containers by their items, in order; functions by code, defaults, closure and the globals that they name; other objects
    by their class, with the code of its methods where it is the user's own, and their attributes. What holds nothing that
    could be told (a lock, a C object without attributes) is told by its type's name.

    Args:
        value: The value.
        leaf: Tells a framework's own objects.
        names: Attributes of objects that are left out, because running the object changes them.
    """
    yield from _Walk(leaf, frozenset(names)).walk(value)


class _Walk:
    """One walk over what a value holds; what is met again is told by the number of its first meeting."""

    def __init__(self, leaf: Leaf | None, names: frozenset[str]) -> None:
        self._leaf, self._names = leaf, names
        self._met: dict[int, tuple[int, Any]] = {}

    def walk(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, PLAIN):
            yield of_constant(value)
            return
        if id(value) in self._met:
            yield b"met %d" % self._met[id(value)][0]
            return
        self._met[id(value)] = (len(self._met), value)  # kept, so that no other object gets its id
        told = None if self._leaf is None else self._leaf(value, self.walk)
        yield type(value).__qualname__.encode()
        yield from self._parts(value) if told is None else told

    def _parts(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, np.ndarray | np.generic):
            yield from self._array(np.asarray(value))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from self.walk(key)
                yield from self.walk(item)
            yield from self._attributes(value)
        elif isinstance(value, set | frozenset):
            yield from sorted(b"".join(of_object(item, self._leaf, self._names)) for item in value)
        elif isinstance(value, tuple | list | deque):
            for item in value:
                yield from self.walk(item)
            yield from self._attributes(value)
        elif isinstance(value, functools.partial):
            for part in (value.func, value.args, value.keywords):
                yield from self.walk(part)
        elif inspect.ismethod(value):
            yield from self.walk(value.__self__)
            yield from self.walk(value.__func__)
        elif inspect.isfunction(value):
            yield from self._function(value)
        elif inspect.isclass(value):
            yield from self._class(value)
        elif inspect.ismodule(value):
            yield value.__name__.encode()
        elif isinstance(value, Enum | range | slice | np.dtype | PurePath | re.Pattern):
            yield repr(value).encode()
        else:
            yield from self._object(value)

    def _array(self, array: NDArray[Any]) -> Iterator[bytes]:
        yield f"{array.dtype}{array.shape}".encode()
        if array.dtype == object:
            for item in array.ravel():
                yield from self.walk(item)
        else:
            yield array.tobytes()

    def _function(self, function: Any) -> Iterator[bytes]:
        yield f"{function.__module__}.{function.__qualname__}".encode()
        yield from of_code(function.__code__)
        for part in (function.__defaults__, function.__kwdefaults__, vars(function)):
            if part:
                yield from self.walk(part)
        for cell in function.__closure__ or ():
            try:
                yield from self.walk(cell.cell_contents)
            except ValueError:  # a name that is not bound yet
                continue
        if not _is_library(function.__module__):
            yield from self._globals(function.__globals__, _names_in(function.__code__))

    def _globals(self, found: Mapping[str, Any], names: list[str]) -> Iterator[bytes]:
        """The globals that code names, and of modules among them the attributes that it names."""
        for name in names:
            value = found.get(name)
            if inspect.ismodule(value):
                yield value.__name__.encode()
                if not _is_library(value.__name__) and id(value) not in self._met:
                    self._met[id(value)] = (len(self._met), value)
                    yield from self._globals(vars(value), names)
            elif name in found:
                yield name.encode()
                yield from self.walk(value)

    def _class(self, kind: type) -> Iterator[bytes]:
        yield f"{kind.__module__}.{kind.__qualname__}".encode()
        if _is_library(kind.__module__):
            return
        for base in kind.__bases__:
            yield from self.walk(base)
        for name, value in sorted(vars(kind).items()):
            if isinstance(value, property):
                value = value.fget
            elif isinstance(value, staticmethod | classmethod):
                value = value.__func__
            if inspect.isfunction(value) or isinstance(value, PLAIN) or not name.startswith("__"):
                yield name.encode()
                yield from self.walk(value)

    def _object(self, value: Any) -> Iterator[bytes]:
        kind = type(value)
        if kind.__module__.partition(".")[0] in _WITHOUT_CONTENT:
            return
        yield from self.walk(kind)
        yield from self._attributes(value)
        if not hasattr(value, "__dict__") and hasattr(value, "__array__"):
            with suppress(Exception):  # a tensor of a framework that is not asked here, on another device
                yield from self._array(np.asarray(value))

    def _attributes(self, value: Any) -> Iterator[bytes]:
        cached = {
            n for k in type(value).__mro__ for n, v in vars(k).items() if isinstance(v, functools.cached_property)
        }
        for name, item in sorted(_own(value).items(), key=lambda pair: str(pair[0])):
            if name not in self._names and name not in cached:
                yield str(name).encode()
                yield from self.walk(item)


_WITHOUT_CONTENT = frozenset({
    "_abc", "_asyncio", "_io", "_thread", "_weakref", "asyncio", "concurrent", "generator", "io", "logging", "multiprocessing",
    "queue", "socket", "subprocess", "threading", "weakref",
})  # fmt: skip
"""Packages whose objects say nothing of a model, and are others in each process."""


def _own(value: Any) -> dict[str, Any]:
    """The attributes of an object, in its ``__dict__`` and in slots."""
    found = dict(getattr(value, "__dict__", {}))
    for kind in type(value).__mro__:
        slots = vars(kind).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else slots:
            if name not in ("__dict__", "__weakref__") and hasattr(value, name):
                found[name] = getattr(value, name)
    return found


def _names_in(code: CodeType) -> list[str]:
    """The names of globals and attributes in a function's code, and in that of the functions within it."""
    inner = (name for constant in code.co_consts if inspect.iscode(constant) for name in _names_in(constant))
    return list(dict.fromkeys((*code.co_names, *inner)))


@functools.cache
def _is_library(module: str | None) -> bool:
    """Whether a module is of the standard library or of an installed package, whose version says what its code is."""
    top = (module or "").partition(".")[0]
    if top == "__main__":  # a notebook's own code, though the program that runs it may be installed
        return False
    if top in sys.stdlib_module_names:
        return True
    file = getattr(sys.modules.get(top), "__file__", None) or ""
    return "site-packages" in file or "dist-packages" in file


def of_callable(function: Any) -> Iterator[bytes]:
    """A callable by its name, its code, and everything that it holds."""
    yield from of_object(function)
