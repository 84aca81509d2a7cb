"""The values that a model holds or names: what its kind, its weights and modules in training mode are read from.

The walk is shallow and cheap: closures, defaults, attributes, containers, and the globals that code names. Nothing is run or
imported, and jax itself is only needed for what comes after a JAX model is known to be there.
"""

from __future__ import annotations

import dis
import functools
import inspect
import sys
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from types import CodeType, FunctionType, MethodType, ModuleType
from typing import Any

import numpy as np

from fo_onnx.plugin_kit.digests import is_library

PACKAGES = ("jax", "jaxlib", "flax", "equinox", "haiku")
"""The top-level packages whose objects are JAX models, or parts of them."""
OTHER_FRAMEWORKS = ("keras", "torch", "tensorflow")
"""Packages whose models are another exporter's, even if they compute in JAX."""
_JIT_WRAPPERS = {
    ("jaxlib", "PjitFunction"), ("jaxlib", "CompiledFunction"), ("jax", "custom_jvp"), ("jax", "custom_vjp"),
    ("jax", "custom_vmap"), ("flax", "JitWrapped"), ("equinox", "_JitWrapper"),
}  # fmt: skip
_VMAP_ARGUMENTS = ("in_axes", "out_axes", "axis_name", "axis_size", "spmd_axis_name")
_PLAIN = (bool, int, float, complex, str, bytes, type(None))


def packages_of(value: Any) -> set[str]:
    """Return the top-level packages of a value's class and its base classes; of a module its own."""
    if isinstance(value, ModuleType):
        return {value.__name__.partition(".")[0]}
    return {str(c.__module__).partition(".")[0] for c in type(value).__mro__}


def is_array(value: Any) -> bool:
    """Return whether a value is an array of JAX, or a tracer of one. Never imports jax."""
    jax = sys.modules.get("jax")
    return jax is not None and hasattr(jax, "Array") and isinstance(value, jax.Array)


def find_weights(model: Any) -> list[Any]:
    """Return the arrays, of JAX and of numpy, that a model holds."""
    return [v for v in walk(model) if is_array(v) or (isinstance(v, np.ndarray) and v.dtype != object)]


# Wrappers -----------------------------------------------------------------------------------------------------------


def unwrap(model: Any) -> Any:
    """Return the function, method or module that the user wrote, out of ``jit``, ``vmap``, ``checkpoint`` and partials."""
    for _ in range(100):
        if isinstance(model, functools.partial):
            model = model.func
        # A user's own object is not what it wraps, even if it has been through functools.update_wrapper.
        elif isinstance(model, FunctionType) or str(type(model).__module__).partition(".")[0] in PACKAGES:
            inner = getattr(model, "__wrapped__", None)
            if inner is None:
                break
            model = inner
        else:
            break
    return model


def is_jit(value: Any) -> bool:
    """Return whether a value is a ``jit``, or gives a function other derivatives: calling what it wraps gives the same."""
    cls = type(value)
    return (str(cls.__module__).partition(".")[0], cls.__name__) in _JIT_WRAPPERS


def rewrap(model: Any, change: Callable[[Any], Any]) -> Any:
    """Return `model` with ``change(inner)`` in place of what ``jax.jit``, ``jax.vmap`` and ``functools.partial`` wrap.

    A ``jit`` around something that was changed is left out, since the whole is compiled later on.
    """
    is_partial, arguments = isinstance(model, functools.partial), _vmap_arguments(model)
    if not is_partial and not is_jit(model) and arguments is None:
        return change(model)
    inner = model.func if is_partial else model.__wrapped__
    changed = rewrap(inner, change)
    # Wrapped again only if something changed, so that a model that needs no change stays the same object.
    if changed is inner:
        return model
    if is_partial:
        return type(model)(changed, *model.args, **model.keywords)
    if arguments is None:
        return changed
    import jax

    return jax.vmap(changed, **arguments)


def _vmap_arguments(model: Any) -> dict[str, Any] | None:
    """Return the arguments that ``jax.vmap`` made a function with; ``None`` for any other function.

    They are in the closure of ``vmap_f`` (``jax/_src/api.py``), which one more wrapper of JAX holds as ``fun``.
    """
    function = model
    while isinstance(function, FunctionType) and str(function.__globals__.get("__name__")).partition(".")[0] == "jax":
        closure = dict(_closure_of(function))
        if function.__code__.co_name == "vmap_f":
            # Otherwise it belongs to a function that the model wraps, as in jax.checkpoint(jax.vmap(f)).
            is_its_own = closure.get("fun") is getattr(model, "__wrapped__", None)
            return {name: closure[name] for name in _VMAP_ARGUMENTS if name in closure} if is_its_own else None
        function = closure.get("fun")
    return None


# The walk -----------------------------------------------------------------------------------------------------------


def walk(model: Any, limit: int = 50_000) -> Iterator[Any]:
    """Yield what `model` holds or names, itself first, each value once and the nearest first; about `limit` values.

    Plain numbers and text are left out.
    """
    seen: dict[int, Any] = {}  # keeps the values alive, so that no id is given twice
    queue = [model]
    for value in queue:
        if id(value) in seen:
            continue
        seen[id(value)] = value
        yield value
        if len(queue) < limit:
            queue.extend(islice((p for p in _parts_of(value) if not isinstance(p, _PLAIN)), limit))


def _parts_of(value: Any) -> Iterator[Any]:
    """Yield what a value holds, one step deep."""
    if isinstance(value, type):
        # A class that code names: the code may make an instance of it, and call that.
        yield from _methods_of(value, "__init__", "__call__")
    elif isinstance(value, np.ndarray | np.generic | np.dtype | ModuleType) or is_array(value):
        return
    elif isinstance(value, functools.partial):
        yield from (value.func, *value.args, *value.keywords.values())
    elif isinstance(value, MethodType):
        yield from (value.__self__, value.__func__)
        yield from _methods_of(type(value.__self__), value.__func__.__name__)
    elif isinstance(value, FunctionType):
        yield from _parts_of_function(value)
    elif is_jit(value):
        yield value.__wrapped__
    else:
        if isinstance(value, Mapping):
            yield from value.values()
        elif isinstance(value, list | tuple | set | frozenset | deque):
            yield from value
        yield from _attributes_of(value)
        yield from _methods_of(type(value), "__call__")


def _parts_of_function(function: FunctionType) -> Iterator[Any]:
    """Yield a function's closure, defaults, attributes, and the globals that its code names unless it is library code."""
    yield from (value for _, value in _closure_of(function))
    yield from (*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values())
    # The attributes of a wrapper are copies of those of what it wraps.
    attributes = vars(function)
    yield from [attributes["__wrapped__"]] if "__wrapped__" in attributes else attributes.values()
    names = function.__globals__
    if is_library(names.get("__name__")):
        return
    for name in sorted(_globals_in(function.__code__) & names.keys()):
        value = names[name]
        yield value
        if isinstance(value, ModuleType) and not is_library(value.__name__):
            # A file of the user's own: what the code takes of it.
            yield from (vars(value)[n] for n in sorted(_names_in(function.__code__) & vars(value).keys()))


def _closure_of(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue


def _attributes_of(value: Any) -> Iterator[Any]:
    yield from getattr(value, "__dict__", {}).values()
    for cls in type(value).__mro__:
        slots = vars(cls).get("__slots__", ())
        yield from (getattr(value, slot, None) for slot in ((slots,) if isinstance(slots, str) else slots))


def _methods_of(cls: type, *names: str) -> Iterator[Any]:
    """Yield methods of a user's class, and the methods and class attributes that they and those in turn name."""
    if is_library(str(cls.__module__)):
        return
    seen: dict[str, None] = {}
    queue = [*names]
    for name in queue:
        if name in seen:
            continue
        seen[name] = None
        member = inspect.getattr_static(cls, name, None)
        method = getattr(member, "fget", None) or getattr(member, "__func__", member)
        yield method
        if isinstance(method, FunctionType):
            queue.extend(sorted(_names_in(method.__code__)))


@functools.lru_cache(maxsize=10_000)
def _globals_in(code: CodeType) -> frozenset[str]:
    """Return the globals that code and the functions within it name."""
    own = {str(i.argval) for i in dis.get_instructions(code) if i.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    return frozenset(own.union(*(_globals_in(c) for c in code.co_consts if inspect.iscode(c))))


@functools.lru_cache(maxsize=10_000)
def _names_in(code: CodeType) -> frozenset[str]:
    """Return the globals and attributes that code and the functions within it name."""
    return frozenset(code.co_names).union(*(_names_in(c) for c in code.co_consts if inspect.iscode(c)))
