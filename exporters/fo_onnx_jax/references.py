"""What a model reaches: its closure, the globals that its code names, its fields, and what these hold in turn.

Who asks whether a function is one over JAX arrays, where its weights are, or what tells it from another, walks the same
way. Nothing here imports a framework.
"""

from __future__ import annotations

import dataclasses
import dis
import functools
import importlib
import importlib.util
import inspect
import logging
import sys
from collections import deque
from collections.abc import Iterator, Mapping
from functools import cache, lru_cache
from itertools import islice
from pathlib import Path
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

log = logging.getLogger("fo_onnx_jax")
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
    # Also told of a package that is not imported yet. One that is compiled into the interpreter has no file.
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        spec = None
    found = [spec.origin, *(spec.submodule_search_locations or ())] if spec is not None else []
    files = [f for f in (getattr(sys.modules.get(package), "__file__", None), *found) if f is not None]
    return any({"site-packages", "dist-packages"} & set(Path(f).parts) for f in files)


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


def references(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function has in its hands, by name: closure, defaults, attributes, and what its code names or imports.

    Of library code (the wrapper that ``jax.vmap`` makes) only the closure, the defaults and the attributes are the user's.
    """
    paths = paths_in(function.__code__)
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield from _named(name, cell.cell_contents, within(paths, f".{name}"))
        except ValueError:  # a name that is not bound yet
            continue
    for name, default in defaults_of(function).items():
        yield from _named(name, default, within(paths, f".{name}"))
    yield from vars(function).items()
    if is_library(str(function.__globals__.get("__name__", ""))):
        return
    for name in sorted({p[0] for p in paths}):
        if name in function.__globals__:
            yield from _named(name, function.__globals__[name], within(paths, name))
    yield from _imported(function)


def defaults_of(function: FunctionType) -> dict[str, Any]:
    """The defaults of a function's arguments, by name."""
    code, defaults = function.__code__, function.__defaults__ or ()
    names = code.co_varnames[: code.co_argcount][code.co_argcount - len(defaults) :]
    return {**dict(zip(names, defaults, strict=True)), **(function.__kwdefaults__ or {})}


Paths = frozenset[tuple[str, ...]]
"""Variables with the attributes that are taken of them, as ``("a", "b")`` for ``a.b``; a local's name is led by a dot."""


@lru_cache(maxsize=10_000)
def paths_in(code: CodeType) -> Paths:
    """The variables in a function's code and in that of the functions within it, with the attributes taken of them."""
    found: set[tuple[str, ...]] = set()
    path: tuple[str, ...] = ()
    for step in dis.get_instructions(code):
        if step.opname in ("LOAD_ATTR", "LOAD_METHOD"):
            path = (*path, step.argval) if path else ()
        elif step.opname.startswith(("LOAD_GLOBAL", "LOAD_NAME")):
            path = (step.argval,)
        elif step.opname.startswith(("LOAD_DEREF", "LOAD_CLASSDEREF", "LOAD_FAST")):
            # Newer Pythons load two variables in one instruction.
            path = (f".{step.argval[-1] if isinstance(step.argval, tuple) else step.argval}",)
        elif step.opname not in ("EXTENDED_ARG", "CACHE"):
            path = ()
        if path:
            found.add(path)
    for constant in code.co_consts:
        if inspect.iscode(constant):
            found |= paths_in(constant)
    return frozenset(found)


def within(paths: Paths, name: str) -> Paths:
    """What is taken of `name`: the rest of the paths that begin with it."""
    return frozenset(p[1:] for p in paths if p[0] == name and len(p) > 1)


def is_own_module(value: Any) -> bool:
    """Whether a value is a module (a file) of the user's own, of which functions may take attributes."""
    return isinstance(value, ModuleType) and not is_library(value.__name__)


def _named(name: str, value: Any, paths: Paths) -> Iterator[tuple[str, Any]]:
    yield name, value
    if is_own_module(value):
        for inner in sorted({p[0] for p in paths}):
            if inner in vars(value):
                yield from _named(f"{name}.{inner}", vars(value)[inner], within(paths, inner))


def _imported(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """What a function imports of the user's own while it runs, as far as its code names it."""
    names = frozenset(names_in(function.__code__))
    package = str(function.__globals__.get("__package__") or "")
    for level, target in sorted(imports_in(function.__code__)):
        try:
            full = importlib.util.resolve_name("." * level + target, package or None)
            if is_library(full):
                continue
            # The function would do so itself, and what it holds has to be the same before and after that.
            module = importlib.import_module(full)
        except Exception as err:
            # Whatever the user's file raises, it does so where the function runs.
            log.debug("%s imports %s, which fails: %s", function.__qualname__, target, err)
            continue
        yield from _of_module(full, module, names, set())
        top = full.partition(".")[0]
        if top != full:
            yield from _of_module(top, sys.modules[top], names, {id(module)})


def _of_module(label: str, module: ModuleType, names: frozenset[str], seen: set[int]) -> Iterator[tuple[str, Any]]:
    if id(module) in seen:
        return
    seen.add(id(module))
    for name in sorted(names & set(vars(module))):
        value = vars(module)[name]
        yield f"import {label}.{name}", value
        if is_own_module(value):
            yield from _of_module(f"{label}.{name}", value, names, seen)


@lru_cache(maxsize=10_000)
def imports_in(code: CodeType) -> frozenset[tuple[int, str]]:
    """The imports in a function's code and in that of the functions within it: how many levels up, and the module's name."""
    found: set[tuple[int, str]] = set()
    steps = list(dis.get_instructions(code))
    for i, step in enumerate(steps):
        if step.opname == "IMPORT_NAME":
            # Before it, the level and what is imported from it are loaded as constants.
            loaded = [
                s.argval for s in steps[max(0, i - 4) : i] if s.opname.startswith("LOAD_") and isinstance(s.argval, int)
            ]
            found.add((loaded[-1] if loaded else 0, step.argval))
    for constant in code.co_consts:
        if inspect.iscode(constant):
            found |= imports_in(constant)
    return frozenset(found)


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
        yield from (v for _, v in references(value))
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


def attributes_of(value: Any) -> dict[str, Any]:
    """The attributes of an object, in its ``__dict__`` and in slots, and the fields of a dataclass, by name."""
    fields = dataclasses.fields(value) if dataclasses.is_dataclass(value) else ()
    # The names in an nnx.List are numbers.
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
