"""Digests of arrays and of Python code, of which the frameworks make the identity of a model.

A model is identified by its name, its weights and its own code, one level deep. Nothing is followed into containers that
change, globals or other objects: an export from the cache is compared with the model on its rows anyway. Plain values that
the model's own code assigns while it is called do not count (`without_assigned`).
"""

from __future__ import annotations

import contextlib
import dis
import functools
import hashlib
import importlib.util
import inspect
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from types import CodeType, FunctionType
from typing import Any

import numpy as np
from numpy.typing import NDArray

PLAIN = (bool, int, float, complex, str, bytes, type(None))
_CHUNK_BYTES = 1 << 24
_CALLS = ("__call__", "forward", "call", "predict", "predict_proba", "decision_function")
"""The methods by which models are called."""


def sha256_of(parts: Iterable[bytes]) -> str:
    """Return the SHA-256 of `parts`, each behind its length, so that no two rows of parts join to the same bytes."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(b"%d:" % len(part))
        digest.update(part)
    return digest.hexdigest()


def of_array(array: NDArray[Any]) -> Iterator[bytes]:
    """Yield dtype, shape and values of an array that holds no objects."""
    yield f"{array.dtype}{array.shape}".encode()
    flat = np.ascontiguousarray(array).reshape(-1)
    step = max(1, _CHUNK_BYTES // max(1, flat.itemsize))
    for start in range(0, len(flat), step):
        yield flat[start : start + step].tobytes()


def of_constant(value: Any) -> bytes:
    """Return a constant as bytes. The text of a frozenset itself would follow the hash seed of the process."""
    if isinstance(value, frozenset | set):
        return b"{" + b",".join(sorted(of_constant(v) for v in value)) + b"}"
    if isinstance(value, tuple | list):
        return b"(" + b",".join(of_constant(v) for v in value) + b")"
    return repr(value).encode()


def of_value(value: Any) -> Iterator[bytes]:
    """Yield a plain value, a tuple of such, or an array, and of anything else the name of its type.

    Lists and dicts count by their type alone, since models fill them while they run.
    """
    if is_plain(value):
        yield of_constant(value)
    elif isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        yield from of_array(np.asarray(value))
    else:
        yield qualified_name(type(value)).encode()


def of_code(code: CodeType) -> Iterator[bytes]:
    """Yield the bytecode of a function, its arguments, names and constants, and those of the functions within it."""
    counts = (code.co_argcount, code.co_posonlyargcount, code.co_kwonlyargcount, code.co_flags)
    arguments = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
    yield code.co_code
    yield repr((counts, arguments, code.co_names, code.co_exceptiontable)).encode()
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from of_code(constant)
        else:
            yield of_constant(constant)


def of_callable(function: Any) -> Iterator[bytes]:
    """Yield the name and code of a callable, with the plain values and arrays that it has at hand.

    These are defaults and closure of a function, the arguments of a partial, and the attributes of a method's owner or of an
    object that is called. What ``functools.wraps`` has wrapped is followed.
    """
    if isinstance(function, functools.partial):
        yield b"partial"
        yield from of_callable(function.func)
        for value in function.args:
            yield from of_value(value)
        yield from _of_named(function.keywords)
    elif inspect.ismethod(function):
        yield from of_callable(function.__func__)
        yield from _of_attributes(function.__self__, function.__name__)
    elif inspect.isfunction(function):
        yield from _of_function(function)
    else:
        yield qualified_name(function).encode()  # where it has one, as what is compiled has
        yield from _of_attributes(function)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield from of_callable(wrapped)


def _of_attributes(owner: Any, *methods: str) -> Iterator[bytes]:
    """Yield a class, or that of an object, with its code, and the object's attributes that are plain values or arrays.

    `methods` are called besides those that every model may have.
    """
    kind = owner if inspect.isclass(owner) else type(owner)
    yield qualified_name(kind).encode()
    yield from of_class_code(kind.__mro__, *methods)
    if kind is not owner:
        yield from _of_named(without_assigned(getattr(owner, "__dict__", {}), kind, *methods))


def of_class_code(classes: Iterable[type], *methods: str) -> Iterator[bytes]:
    """Yield the functions and plain constants of classes; those of libraries are known by their versions."""
    own = [kind for kind in dict.fromkeys(classes) if not is_library(kind.__module__)]
    for kind in own:
        yield qualified_name(kind).encode()
        # A method of a class below may count in one above.
        assigned = _names_assigned([k for k in own if issubclass(k, kind) or issubclass(kind, k)], methods)
        for name, value in sorted(vars(kind).items()):
            if is_plain(value) and not name.startswith("__") and name not in assigned:
                yield from (name.encode(), of_constant(value))
            for function in _functions_in(value):
                yield name.encode()
                yield from of_callable(function)


def without_assigned(attributes: Mapping[str, Any], kind: type, *methods: str) -> dict[str, Any]:
    """Return the attributes of an object of a class without plain values that its own code assigns while it is called.

    Such a value, a count of calls or a time, is another one after each call, and no part of the model.
    """
    assigned = _names_assigned([base for base in kind.__mro__ if not is_library(base.__module__)], methods)
    return {name: value for name, value in attributes.items() if name not in assigned or not is_plain(value)}


def _names_assigned(classes: Sequence[type], methods: Iterable[str]) -> set[str]:
    """Return the attributes that methods of classes assign which are called, or which these call in turn."""
    names: set[str] = set()
    pending, known = {*_CALLS, *methods}, {"__init__"}
    while pending:
        name = pending.pop()
        known.add(name)
        for function in (f for kind in classes for f in _functions_in(vars(kind).get(name))):
            code = getattr(inspect.unwrap(function), "__code__", None)
            if code is not None:
                names |= _stored_names(code, "STORE_ATTR")
                pending |= set(code.co_names) - known
    return names


def _stored_names(code: CodeType, operation: str) -> set[str]:
    """Return the names that a function, or one within it, stores to by an operation of the bytecode."""
    names = {i.argval for i in dis.get_instructions(code) if i.opname == operation}
    return names.union(*(_stored_names(inner, operation) for inner in code.co_consts if inspect.iscode(inner)))


def is_plain(value: Any, deepest: int = 8) -> bool:
    """Return whether a value is a constant, or a tuple of such, up to `deepest` in each other."""
    if type(value) in (tuple, frozenset):
        return deepest > 0 and all(is_plain(item, deepest - 1) for item in value)
    return type(value) in PLAIN


def is_library(module: str | None) -> bool:
    """Return whether a module is of the standard library or of an installed package, whose version says what its code is."""
    top = (module or "").partition(".")[0]
    # A notebook's own code is of __main__, though the program that runs it may be installed.
    return top != "__main__" and (top in sys.stdlib_module_names or _is_installed(top))


@functools.cache
def _is_installed(package: str) -> bool:
    # A package that is not imported yet counts too. One that is compiled into the interpreter has no file.
    try:
        spec = importlib.util.find_spec(package) if package else None
    except (ImportError, ValueError):
        spec = None
    places = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else []
    files = [f for f in (getattr(sys.modules.get(package), "__file__", None), *places) if f is not None]
    return any({"site-packages", "dist-packages"} & set(Path(f).parts) for f in files)


def qualified_name(thing: Any) -> str:
    """Return the name of a class or a function with its module's; of a partial its function's, of an object its class's."""
    if isinstance(thing, functools.partial):
        return f"partial({qualified_name(thing.func)})"
    name = getattr(thing, "__qualname__", getattr(thing, "__name__", None))
    return qualified_name(type(thing)) if name is None else f"{getattr(thing, '__module__', None)}.{name}"


def _of_function(function: FunctionType) -> Iterator[bytes]:
    yield qualified_name(function).encode()
    yield from of_code(function.__code__)
    for default in function.__defaults__ or ():
        yield from of_value(default)
    closure = {}
    # What is `nonlocal` in the function is another value after each call.
    assigned = _stored_names(function.__code__, "STORE_DEREF")
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        with contextlib.suppress(ValueError):  # a name that is not bound yet
            if name not in assigned or not is_plain(cell.cell_contents):
                closure[name] = cell.cell_contents
    yield from _of_named((function.__kwdefaults__ or {}) | closure)


def _of_named(values: dict[str, Any]) -> Iterator[bytes]:
    for name, value in sorted(values.items(), key=lambda item: str(item[0])):
        yield str(name).encode()
        yield from of_value(value)


def _functions_in(entry: Any) -> Iterator[FunctionType]:
    """Yield the functions in an entry of a class: a method, or the function in a property or a static method."""
    parts = (entry, *(getattr(entry, n, None) for n in ("__func__", "fget", "func")))
    yield from (part for part in parts if inspect.isfunction(part))
