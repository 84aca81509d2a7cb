"""What tells one function or object from another across processes: code, constants, and what they hold, deeply.

There is one walk for every framework; a framework says as a `Leaf` what its own objects consist of.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
import logging
import re
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from itertools import islice
from pathlib import PurePath
from types import CodeType, FunctionType, MethodType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .bytecode import globals_in, imported_by, is_library, is_own_module, names_in

log = logging.getLogger("fo_onnx.digests")
PLAIN = (bool, int, float, complex, str, bytes, type(None))
_DEEPEST = 50
"""What lies deeper is told after the rest, since Python's stack ends."""
_SKETCHED = 1000
"""So many parts of a set's item decide on its place in the order."""
_CHUNK_BYTES = 1 << 24


def of_code(code: CodeType) -> Iterator[bytes]:
    """The bytecode of a function, its arguments, names and constants, and those of the functions within it."""
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    yield code.co_code
    yield repr((counts, arguments, code.co_names, code.co_exceptiontable)).encode()
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


def of_array(array: NDArray[Any]) -> Iterator[bytes]:
    """An array that holds no objects: dtype, shape and values."""
    yield f"{array.dtype}{array.shape}".encode()
    flat = np.ascontiguousarray(array).reshape(-1)
    step = max(1, _CHUNK_BYTES // max(1, flat.itemsize))
    for start in range(0, len(flat), step):
        yield flat[start : start + step].tobytes()


Walk = Callable[[Any], "Iterator[bytes]"]
Leaf = Callable[[Any, Walk], "Iterator[bytes] | None"]
"""What a framework tells of its own objects (tensors, layers), with the way to go on into what they hold; ``None`` of
everything else."""


def of_object(value: Any, leaf: Leaf | None = None, names: Collection[str] = ()) -> Iterator[bytes]:
    """Everything that a value holds, deeply, as far as it is the same in another process.

    Containers by their items, in order; functions by code, defaults, closure, the globals that they name and what they
    import; other objects by their class, with the code of its methods where it is the user's own, and their attributes; C
    objects without attributes by their name, or by what they give to be pickled. What holds nothing that could be told (a
    lock, a C object that cannot be pickled) is told by its type's name.

    Each part comes after its length, so that no two rows of parts join to the same bytes.

    Args:
        value: The value.
        leaf: Tells a framework's own objects.
        names: Attributes of objects and classes that are left out, because running the object changes them. One that ends in
            ``*`` stands for all that begin so. Methods are never left out.
    """
    for part in _Walk(leaf, tuple(names)).all(value):
        yield b"%d:" % len(part)
        yield part


class _Walk:
    """One walk over what a value holds; what is met again is told by the number of its first meeting."""

    def __init__(self, leaf: Leaf | None, names: tuple[str, ...], *, is_sketch: bool = False) -> None:
        self._leaf, self._names, self._is_sketch = leaf, names, is_sketch
        self._beginnings = tuple(name[:-1] for name in names if name.endswith("*"))
        self._depth = 0
        self._later: deque[Any] = deque()
        self._met: dict[int, tuple[int, Any]] = {}

    def all(self, value: Any) -> Iterator[bytes]:
        yield from self.walk(value)
        while self._later:
            yield from self._whole(self._later.popleft())

    def walk(self, value: Any) -> Iterator[bytes]:
        if _is_constant(value):
            yield of_constant(value)
            return
        if id(value) in self._met:
            yield b"met %d" % self._met[id(value)][0]
            return
        self._met[id(value)] = (len(self._met), value)  # kept, so that no other object gets its id
        if self._depth >= _DEEPEST:
            self._later.append(value)
            yield b"later"
            return
        self._depth += 1
        try:
            yield from self._whole(value)
        finally:
            self._depth -= 1

    def _whole(self, value: Any) -> Iterator[bytes]:
        told = None if self._leaf is None else self._leaf(value, self.walk)
        yield type(value).__qualname__.encode()
        yield from self._parts(value) if told is None else told
        yield b"end"

    def _parts(self, value: Any) -> Iterator[bytes]:
        if isinstance(value, np.ndarray | np.generic):
            yield from self._array(np.asarray(value))
        elif isinstance(value, Mapping):
            for key, item in value.items():
                yield from self.walk(key)
                yield from self.walk(item)
            yield from self._of_subclass(value)
        elif isinstance(value, set | frozenset):
            yield from self._set(value)
            yield from self._of_subclass(value)
        elif isinstance(value, tuple | list | deque):
            for item in value:
                yield from self.walk(item)
            yield from self._of_subclass(value)
        elif isinstance(value, PLAIN):  # of a class that derives from it
            base: Any = next(kind for kind in PLAIN if isinstance(value, kind))
            yield base.__repr__(value).encode()
            yield from self._of_subclass(value)
        elif inspect.isclass(value):
            yield from self._class(value)
        elif inspect.isfunction(value):
            yield from self._function(value)
        elif inspect.iscode(value):
            yield from of_code(value)
        elif inspect.ismodule(value):
            yield value.__name__.encode()
        elif isinstance(value, range | slice | np.dtype | PurePath):
            yield repr(value).encode()
        elif isinstance(value, bytearray | memoryview):
            yield bytes(value)
        else:
            held = next((names for kind, names in _HOLDERS.items() if isinstance(value, kind)), None)
            yield from self._object(value) if held is None else self._each(getattr(value, n) for n in held)

    def _each(self, values: Iterable[Any]) -> Iterator[bytes]:
        for value in values:
            yield from self.walk(value)

    def _array(self, array: NDArray[Any]) -> Iterator[bytes]:
        if array.dtype.hasobject:
            yield f"{array.dtype}{array.shape}".encode()
            yield from self.walk(array.tolist())
        else:
            yield from of_array(array)

    def _set(self, items: Collection[Any]) -> Iterator[bytes]:
        """A set's items, sorted by what they are: their own order follows addresses and the hash seed."""
        if self._is_sketch:  # Sets within sets would be sketched again and again.
            yield b"%d" % len(items)
            yield from sorted(of_constant(item) for item in items if _is_constant(item))
        else:
            yield from self._each(sorted(items, key=self._place))

    def _place(self, item: Any) -> tuple[int, bytes]:
        """Where an item of a set comes: what was met before by its number, then the others by a digest of how they begin.

        Different ones that begin alike stay in the set's own order: then equal sets may be told differently, never the reverse.
        """
        if id(item) in self._met:
            return self._met[id(item)][0], b""
        digest = hashlib.sha256()
        for part in islice(_Walk(self._leaf, self._names, is_sketch=True).all(item), _SKETCHED):
            digest.update(part)
        return len(self._met), digest.digest()

    def _function(self, function: FunctionType) -> Iterator[bytes]:
        yield f"{function.__module__}.{function.__qualname__}".encode()
        yield from of_code(function.__code__)
        names = tuple(dict.fromkeys(names_in(function.__code__)))
        for default in function.__defaults__ or ():
            yield from self._named("default", default, names, set())
        for name, default in (function.__kwdefaults__ or {}).items():
            yield from self._named(name, default, names, set())
        if vars(function):
            yield from self.walk(vars(function))
        for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
            try:
                held = cell.cell_contents
            except ValueError:  # a name that is not bound yet
                continue
            yield from self._named(name, held, names, set())
        # Not by its own __module__, which functools.wraps makes that of what it wraps.
        if not is_library(function.__globals__.get("__name__")):
            for name, value in (*globals_in(function).items(), *imported_by(function)):
                yield from self._named(name, value, names, set())

    def _named(self, name: str, value: Any, names: tuple[str, ...], seen: set[int]) -> Iterator[bytes]:
        """A value that code names; of the user's own modules (files) all that has one of the names in the code.

        Not only what is taken of the module by its own name, since a variable can stand for it.
        """
        yield name.encode()
        if not is_own_module(value):
            yield from self.walk(value)
        elif id(value) not in seen:
            seen.add(id(value))
            for inner in names:
                if inner in vars(value):
                    yield from self._named(f"{name}.{inner}", vars(value)[inner], names, seen)

    def _class(self, kind: type) -> Iterator[bytes]:
        yield f"{kind.__module__}.{kind.__qualname__}".encode()
        if is_library(kind.__module__):
            return
        yield from self._each(kind.__bases__)
        for name, value in sorted(vars(kind).items()):
            behaves = callable(value) or hasattr(type(value), "__get__")
            # Python's own entries but methods are texts and tables, and may hold addresses.
            if behaves or not (name.startswith("__") or self._is_left_out(name)):
                yield name.encode()
                yield from self.walk(value)

    def _is_left_out(self, name: str) -> bool:
        return name in self._names or name.startswith(self._beginnings)

    def _of_subclass(self, value: Any) -> Iterator[bytes]:
        """Of a container or a number of a class of its own, that class and its attributes."""
        if type(value).__module__ not in ("builtins", "collections"):
            yield from self.walk(type(value))
            yield from self._attributes(value)

    def _object(self, value: Any) -> Iterator[bytes]:
        kind = type(value)
        if kind.__module__.partition(".")[0] in _WITHOUT_CONTENT:
            return
        yield from self.walk(kind)
        yield from self._attributes(value)
        if not hasattr(value, "__dict__") and not slots_of(kind):
            yield from self._of_c(value)

    def _attributes(self, value: Any) -> Iterator[bytes]:
        cached = {
            n for k in type(value).__mro__ for n, v in vars(k).items() if isinstance(v, functools.cached_property)
        }
        for name, item in sorted(attributes_of(value).items()):
            if not self._is_left_out(name) and name not in cached:
                yield name.encode()
                yield from self.walk(item)

    def _of_c(self, value: Any) -> Iterator[bytes]:
        """A C object without attributes: its name and owner, its values as an array, or what it gives to be pickled."""
        name = getattr(value, "__qualname__", getattr(value, "__name__", None))
        if isinstance(name, str):
            yield f"{getattr(value, '__module__', None)}.{name}".encode()
            owner = getattr(value, "__self__", None)
            yield from self.walk(owner)
            return
        kind: Any = type(value)
        try:
            if hasattr(value, "__array__"):  # a tensor of a framework that is not asked here, on another device
                yield from self._array(np.asarray(value))
            elif kind.__reduce__ is not object.__reduce__ or kind.__reduce_ex__ is not object.__reduce_ex__:
                reduced = value.__reduce_ex__(2)
                yield from self.walk(reduced if isinstance(reduced, str) else list(reduced[1:3]))
        except Exception as err:
            # Whatever it raises, it says no more than its type.
            log.debug("a %s is told by its type alone: %s", kind.__qualname__, err)


_HOLDERS: dict[type, tuple[str, ...]] = {
    functools.partial: ("func", "args", "keywords"),
    MethodType: ("__self__", "__func__"),
    staticmethod: ("__func__",),
    classmethod: ("__func__",),
    property: ("fget", "fset"),
    re.Pattern: ("pattern", "flags"),
}
"""Python's own kinds of objects that hold others, and where."""
_WITHOUT_CONTENT = frozenset({
    "_abc", "_asyncio", "_contextvars", "_frozen_importlib", "_frozen_importlib_external", "_io", "_thread", "_weakref",
    "asyncio", "concurrent", "contextvars", "generator", "importlib", "io", "logging", "multiprocessing", "queue", "socket",
    "subprocess", "threading", "weakref",
})  # fmt: skip
"""Packages whose objects say nothing of a model, and are others in each process."""


def _is_constant(value: Any, deepest: int = 4) -> bool:
    """Whether a value is plain, or a tuple of such.

    Equal tuples among a program's constants are one object where it was compiled at once, and several where it was read
    from a file, so that it must not count whether they were met before.
    """
    if type(value) in (tuple, frozenset):
        return deepest > 0 and all(_is_constant(item, deepest - 1) for item in value)
    return type(value) in PLAIN


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object, in its ``__dict__`` and in slots, and the fields of a dataclass, by name."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    # A name can be a number, as in the lists of flax.nnx.
    own = {str(n): part for n, part in getattr(value, "__dict__", {}).items()}
    slots = {n: getattr(value, n) for n in slots_of(type(value)) if hasattr(value, n)}
    return {f.name: getattr(value, f.name, None) for f in fields} | slots | own


def slots_of(kind: type) -> tuple[str, ...]:
    """The names of the slots of a class written in Python, as its instances know them."""
    found: list[str] = []
    for cls in kind.__mro__:
        slots = vars(cls).get("__slots__", ())
        for name in (slots,) if isinstance(slots, str) else tuple(slots):
            private = name.startswith("__") and not name.endswith("__")
            if name not in ("__dict__", "__weakref__"):
                found.append(f"_{cls.__name__.lstrip('_')}{name}" if private else name)
    return tuple(found)


def of_callable(function: Any) -> Iterator[bytes]:
    """A callable by its name, its code, and everything that it holds."""
    yield from of_object(function)
