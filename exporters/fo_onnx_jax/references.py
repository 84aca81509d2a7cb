"""What a model reaches: its closure, the globals that its code names, its fields, and what these hold in turn.

Who asks whether a function is one over JAX arrays, where its weights are, or what tells it from another, walks the same
way. Nothing here imports a framework.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

PACKAGES = ("jax", "jaxlib", "flax", "equinox", "haiku")
"""The top-level packages whose objects are JAX models, or parts of them."""
OTHERS = ("keras", "torch", "tensorflow")
"""Packages whose models are another exporter's, also where they compute in JAX."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None))
_LEAVES = (*_PLAIN, np.ndarray, np.generic, np.dtype)


def packages_of(value: Any) -> set[str]:
    """Top-level packages of a value's class and of the classes that it derives from; of a module its own."""
    if isinstance(value, ModuleType):
        return {value.__name__.partition(".")[0]}
    return {str(c.__module__).partition(".")[0] for c in type(value).__mro__}


def is_library(module: str) -> bool:
    """Whether a module is installed rather than the user's own: from the standard library or site-packages."""
    top = module.partition(".")[0]
    return top != "__main__" and (top in sys.stdlib_module_names or _is_installed(top))


@cache
def _is_installed(package: str) -> bool:
    file = getattr(sys.modules.get(package), "__file__", None)
    # A namespace package has no file; one that is compiled into the interpreter has none either.
    return file is not None and bool({"site-packages", "dist-packages"} & set(Path(file).parts))


def unwrapped(model: Any) -> Any:
    """What is within ``jit``, ``vmap``, ``checkpoint`` and partials: the function, method or module that the user wrote."""
    for _ in range(100):
        if isinstance(model, MethodType):
            break
        if isinstance(model, functools.partial):
            model = model.func
        elif not isinstance(model, type) and getattr(model, "__wrapped__", None) is not None:
            model = model.__wrapped__
        else:
            break
    return model


def within_filter_jit(value: Any) -> Any:
    """The function or module in an ``equinox.filter_jit``, whose fields are caches and parts of it; else ``None``."""
    cls = type(value)
    is_one = cls.__name__ == "_JitWrapper" and cls.__module__.startswith("equinox.")
    return value.__wrapped__ if is_one else None


def is_nnx_variable(value: Any) -> bool:
    """Whether a value is a variable of flax nnx, which holds an array."""
    return any(c.__name__ == "Variable" and str(c.__module__).startswith("flax.nnx.") for c in type(value).__mro__)


def value_of(variable: Any) -> Any:
    """The array in an nnx variable, past the hooks that reading it may run; flax 0.12 renamed the way there."""
    return variable.get_raw_value() if hasattr(variable, "get_raw_value") else variable.raw_value


def references(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function has in its hands, by name: closure, defaults, and the globals that its code names.

    Of library code (the wrapper that ``jax.vmap`` makes) only the closure and the defaults are the user's.
    """
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    for i, default in enumerate(function.__defaults__ or ()):
        yield f"default {i}", default
    yield from (function.__kwdefaults__ or {}).items()
    if is_library(str(function.__globals__.get("__name__", ""))):
        return
    names = sorted(set(names_in(function.__code__)))
    for name in names:
        if name in function.__globals__:
            value = function.__globals__[name]
            yield name, value
            if isinstance(value, ModuleType) and not is_library(value.__name__):
                yield from ((f"{name}.{n}", vars(value)[n]) for n in names if n in vars(value))


def names_in(code: CodeType) -> Iterator[str]:
    """The names of globals and attributes in a function's code, and in that of the functions within it."""
    yield from code.co_names
    for constant in code.co_consts:
        if inspect.iscode(constant):
            yield from names_in(constant)


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
            queue.extend(islice((p for p in parts_of(value) if not isinstance(p, _PLAIN)), most))


def parts_of(value: Any) -> Iterator[Any]:
    """What a value holds, one step deep."""
    if isinstance(value, (*_LEAVES, type, ModuleType)) or is_array(value):
        return
    if isinstance(value, Mapping):
        yield from value.values()
    elif isinstance(value, list | tuple | set | frozenset):
        yield from value
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
    elif isinstance(value, FunctionType):
        yield from (v for _, v in references(value))
    elif within_filter_jit(value) is not None or (
        getattr(value, "__wrapped__", None) is not None and not dataclasses.is_dataclass(value)
    ):
        yield value.__wrapped__
    elif is_nnx_variable(value):
        yield value_of(value)
    else:
        yield from attributes_of(value).values()
        yield from methods_of(type(value))


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object and the fields of a dataclass, which may have slots, by name."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    # The names in an nnx.List are numbers.
    own = {str(n): part for n, part in getattr(value, "__dict__", {}).items()}
    return {f.name: getattr(value, f.name, None) for f in fields} | own


def methods_of(kind: type) -> Iterator[FunctionType]:
    """``__call__`` of a user's class, and those of its methods that this names."""
    call = getattr(kind, "__call__", None)  # noqa: B004
    if not isinstance(call, FunctionType) or is_library(str(kind.__module__)):
        return
    yield call
    for name in names_in(call.__code__):
        method = inspect.getattr_static(kind, name, None)
        if isinstance(method, FunctionType):
            yield method


def is_array(value: Any) -> bool:
    """Whether a value is an array of JAX, or stands for one while a function is traced. Never imports jax."""
    jax = sys.modules.get("jax")
    return jax is not None and hasattr(jax, "Array") and isinstance(value, jax.Array)
