"""What tells one function or object from another across processes: bytecode, constants, plain attributes."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator, Mapping
from types import CodeType
from typing import Any

import numpy as np

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


def of_attributes(attributes: Mapping[str, Any]) -> Iterator[bytes]:
    """The attributes of an object that are plain values, arrays, or tuples and lists of plain values, by name."""
    for name, value in sorted(attributes.items()):
        if isinstance(value, PLAIN) or (isinstance(value, tuple | list) and all(isinstance(v, PLAIN) for v in value)):
            yield f"{name}=".encode() + of_constant(value)
        elif isinstance(value, np.ndarray) and value.dtype != object:
            yield f"{name}={value.dtype}{value.shape}".encode() + value.tobytes()


def of_tree(value: Any) -> Iterator[bytes]:
    """Plain values and arrays within dicts, lists and tuples, in order; of anything else its type's name."""
    if isinstance(value, Mapping):
        for key in value:
            yield repr(key).encode()
            yield from of_tree(value[key])
    elif isinstance(value, tuple | list):
        for item in value:
            yield from of_tree(item)
    elif isinstance(value, PLAIN):
        yield of_constant(value)
    elif hasattr(value, "__array__"):
        array = np.asarray(value)
        yield f"{array.dtype}{array.shape}".encode() + array.tobytes()
    else:
        yield type(value).__qualname__.encode()


def of_callable(function: Any) -> Iterator[bytes]:
    """A callable: its name, its code, what it closes over as far as that is plain, and the attributes of an instance."""
    if isinstance(function, functools.partial):
        yield from of_tree((function.args, function.keywords))
        yield from of_callable(function.func)
        return
    owner = function if hasattr(function, "__qualname__") else type(function)
    yield f"{getattr(owner, '__module__', '')}.{owner.__qualname__}".encode()
    if owner is not function:
        yield from of_attributes(getattr(function, "__dict__", {}))
        function = owner.__call__
    elif inspect.ismethod(function):
        yield from of_attributes(getattr(function.__self__, "__dict__", {}))
    function = inspect.unwrap(function)
    code = getattr(function, "__code__", None)
    if code is None:
        return
    yield from of_code(code)
    cells = inspect.getclosurevars(function) if inspect.isfunction(function) else None
    if cells is not None:
        yield from of_attributes({**cells.globals, **cells.nonlocals})
