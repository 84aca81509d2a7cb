"""What a model reaches: its closure, the globals that its code names, its fields, and what these hold in turn.

Who asks whether a function is one over JAX arrays, where its weights are, or whether it holds a module in training mode,
walks the same way. Nothing here imports a framework.
"""

from __future__ import annotations

import functools
import inspect
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from itertools import islice
from types import FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from fo_onnx.bytecode import Paths, globals_in, imported_by, is_library, is_own_module, names_in, paths_in, within
from fo_onnx.digests import PLAIN, attributes_of

PACKAGES = ("jax", "jaxlib", "flax", "equinox", "haiku")
"""The top-level packages whose objects are JAX models, or parts of them."""
OTHERS = ("keras", "torch", "tensorflow")
"""Packages whose models are another exporter's, also where they compute in JAX."""
_LEAVES = (*PLAIN, np.ndarray, np.generic, np.dtype)


def packages_of(value: Any) -> set[str]:
    """Top-level packages of a value's class and of the classes that it derives from; of a module its own."""
    if isinstance(value, ModuleType):
        return {value.__name__.partition(".")[0]}
    return {str(c.__module__).partition(".")[0] for c in type(value).__mro__}


def unwrapped(model: Any) -> Any:
    """What is within ``jit``, ``vmap``, ``checkpoint`` and partials: the function, method or module that the user wrote."""
    for _ in range(100):
        if isinstance(model, functools.partial):
            model = model.func
        elif _is_wrapper(model) and getattr(model, "__wrapped__", None) is not None:
            model = model.__wrapped__
        else:
            break
    return model


def _is_wrapper(value: Any) -> bool:
    """Whether an object stands for what it wraps: a function, or an object of JAX's packages; no user's own object does."""
    return isinstance(value, FunctionType) or str(type(value).__module__).partition(".")[0] in PACKAGES


def within_jit(value: Any) -> Any:
    """The function or module in a ``jit`` or in what gives a function other derivatives; else ``None``.

    The fields of these are caches, and to call what they wrap gives the same.
    """
    cls = type(value)
    is_one = (str(cls.__module__).partition(".")[0], cls.__name__) in _JITS
    return value.__wrapped__ if is_one else None


_JITS = {
    ("jaxlib", "PjitFunction"), ("jaxlib", "CompiledFunction"), ("jax", "custom_jvp"), ("jax", "custom_vjp"),
    ("jax", "custom_vmap"), ("flax", "JitWrapped"), ("equinox", "_JitWrapper"),
}  # fmt: skip


def is_nnx_variable(value: Any) -> bool:
    """Whether a value is a variable of flax nnx, which holds an array."""
    return any(c.__name__ == "Variable" and str(c.__module__).startswith("flax.nnx.") for c in type(value).__mro__)


def value_of(variable: Any) -> Any:
    """The array in an nnx variable, past the hooks that reading it may run; flax 0.12 renamed the way there."""
    return variable.get_raw_value() if hasattr(variable, "get_raw_value") else variable.raw_value


def references(function: FunctionType) -> Iterator[Any]:
    """What a function has in its hands: closure, defaults, attributes, and what its code names or imports.

    Of library code (the wrapper that ``jax.vmap`` makes) only the closure, the defaults and the attributes are the user's.
    """
    paths = paths_in(function.__code__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            held = cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
        yield from _named(held, within(paths, f".{name}"))
    for name, default in defaults_of(function).items():
        yield from _named(default, within(paths, f".{name}"))
    yield from vars(function).values()
    if is_library(function.__globals__.get("__name__")):
        return
    for name, value in globals_in(function).items():
        yield from _named(value, within(paths, name))
    names, seen = frozenset(names_in(function.__code__)), set[int]()
    for _, module in imported_by(function):
        yield from _of_module(module, names, seen)


def defaults_of(function: FunctionType) -> dict[str, Any]:
    """The defaults of a function's arguments, by name."""
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
    return {**dict(zip(names, defaults, strict=True)), **(function.__kwdefaults__ or {})}


def _named(value: Any, paths: Paths) -> Iterator[Any]:
    yield value
    if is_own_module(value):
        for name in sorted({p[0] for p in paths} & vars(value).keys()):
            yield from _named(vars(value)[name], within(paths, name))


def _of_module(module: ModuleType, names: frozenset[str], seen: set[int]) -> Iterator[Any]:
    if id(module) in seen:
        return
    seen.add(id(module))
    for name in sorted(names & vars(module).keys()):
        value = vars(module)[name]
        yield value
        if is_own_module(value):
            yield from _of_module(value, names, seen)


def reachable(model: Any, most: int = 10_000) -> Iterator[Any]:
    """Every value that `model` reaches but plain numbers and text, itself first, each once; about so many, nearest first.

    Modules of the user's own are not walked through, only what is named of them.
    """
    seen: dict[int, Any] = {}  # keeps what it has seen alive, so that no id is given twice
    queue = [model]
    for value in queue:
        if id(value) in seen:
            continue
        seen[id(value)] = value
        yield value
        if len(queue) < most:
            queue.extend(islice((p for p in parts_of(value) if not isinstance(p, PLAIN)), most))


def parts_of(value: Any) -> Iterator[Any]:
    """What a value holds, one step deep."""
    if isinstance(value, type):
        # Named in code, which may make one of it or use what it has.
        yield from methods_of(value, vars(value).get("__init__"))
        yield from (() if is_library(value.__module__) else _attributes_of_class(value))
        return
    if isinstance(value, (*_LEAVES, ModuleType)) or is_array(value):
        return
    if isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
        yield from methods_of(type(value.__self__), value.__func__)
    elif isinstance(value, FunctionType):
        yield from references(value)
    elif within_jit(value) is not None:
        yield value.__wrapped__
    elif is_nnx_variable(value):
        yield value_of(value)
    else:
        if isinstance(value, Mapping):
            yield from value.values()
        elif isinstance(value, list | tuple | set | frozenset | deque):
            yield from value
        yield from attributes_of(value).values()
        yield from methods_of(type(value))


def _attributes_of_class(kind: type) -> Iterator[Any]:
    for name, value in vars(kind).items():
        if not name.startswith("__") and not isinstance(value, FunctionType | staticmethod | classmethod | property):
            yield value


def methods_of(kind: type, *more: Any) -> Iterator[Any]:
    """``__call__`` of a user's class, and the methods and class attributes that this, those in `more`, and these in turn name."""
    if is_library(str(kind.__module__)):
        return
    seen: dict[int, Any] = {}
    queue = [inspect.getattr_static(kind, "__call__", None), *more]
    for entry in queue:
        method = getattr(entry, "fget", None) or getattr(entry, "__func__", entry)
        if id(method) in seen:
            continue
        seen[id(method)] = method
        yield method
        if isinstance(method, FunctionType):
            queue.extend(inspect.getattr_static(kind, name, None) for name in names_in(method.__code__))


def is_array(value: Any) -> bool:
    """Whether a value is an array of JAX, or stands for one while a function is traced. Never imports jax."""
    jax = sys.modules.get("jax")
    return jax is not None and hasattr(jax, "Array") and isinstance(value, jax.Array)
