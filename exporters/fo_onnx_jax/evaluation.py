"""Models in evaluation mode: copies, so that the caller's stay as they are.

nnx and equinox modules carry flags for it, also where a function or a wrapper such as ``jax.vmap(model)`` holds them; a
function that holds one is made again around a copy. Other models are told by an argument.
"""

from __future__ import annotations

import contextlib
import copy
import functools
import logging
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import CellType, FunctionType, MethodType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np

from fo_onnx.bytecode import Paths, is_library, is_own_module, paths_in, within
from fo_onnx.digests import attributes_of, slots_of

from .models import Bound, kind_of, mode_arguments, settled
from .references import OTHERS, defaults_of, is_array, packages_of, parts_of, within_jit
from .training_mode import MOST, graphdef_in_evaluation, is_changed, nnx_in_evaluation, require_evaluation

log = logging.getLogger("fo_onnx_jax")
_MODULES = 1000
"""Longer lists hold rows or numbers, and no modules."""


def function_of(model: Any) -> Callable[..., Any]:
    """`model` as a function of its inputs, in evaluation mode and free of side effects.

    Arguments of `fo_onnx_jax.models.MODES` (``train``, ``deterministic``, …) get the value that means inference, whatever their
    default; other arguments that are not inputs keep their defaults.

    Raises:
        ModelError: Its parameters are missing, or it reaches a module in training mode in a way that no copy replaces.
    """
    model = settled(model)
    modes = mode_arguments(model)
    copies = Copies()
    evaluated = copies.of(model)
    require_evaluation(evaluated)
    function: Callable[..., Any] = _pure(evaluated) if copies.of_nnx else evaluated
    return functools.partial(function, **modes) if modes else function


def _pure(model: Any) -> Callable[..., Any]:
    """What holds nnx modules as a function that leaves no trace in them: each call works on fresh copies.

    A module that counts its random numbers (``nnx.RNN`` does, even where it needs none) refuses to be called under a
    transformation that it was made outside of (flax.errors.TraceContextError).
    """

    def call(*args: Any, **kwargs: Any) -> Any:
        return Copies().of(model)(*args, **kwargs)

    return call


class Copies:
    """Makes copies in evaluation mode of what holds nnx and equinox modules, one of each, however often it is held.

    Attributes:
        of_nnx: Whether there was an nnx module among what was copied.
    """

    def __init__(self, known: Mapping[int, tuple[Any, Any]] | None = None) -> None:
        """Takes what has its stand-in already: by its id, the original beside that."""
        self.of_nnx = False
        self._known = dict(known or {})  # with the originals, so that no id is given twice
        self._given = {*self._known}
        self._copied: set[int] = set()
        self._jitted: dict[int, Any] = {}
        self._alive: list[Any] = []

    def of(self, value: Any) -> Any:
        """`value` with every nnx and equinox module that it holds in evaluation mode; itself where it holds none."""
        self._copied = self._holding(value)
        return self._of(value)

    def _holding(self, value: Any) -> set[int]:
        """The ids of what is a module to copy, or holds one, at any depth; of what was found around `value`."""
        seen: dict[int, Any] = {}
        holders: dict[int, list[int]] = {}
        found: list[int] = []
        queue = [value]
        for item in queue:
            if id(item) in seen:
                continue
            seen[id(item)] = item
            if id(item) in self._given or is_changed(item):
                found.append(id(item))
            for part in self._parts(item) if len(queue) < MOST else ():
                holders.setdefault(id(part), []).append(id(item))
                queue.append(part)
        held = set()
        while found:
            one = found.pop()
            if one not in held:
                held.add(one)
                found.extend(holders.get(one, ()))
        self._alive += seen.values()  # so that no id is given twice, to what attributes give anew each time
        return held

    def _parts(self, value: Any) -> list[Any]:
        inner = within_jit(value)
        if inner is None:
            return _held(value)
        # equinox's puts it together anew whenever it is asked.
        return [self._jitted.setdefault(id(value), inner)]

    def _of(self, value: Any) -> Any:
        if id(value) in self._known:
            return self._known[id(value)][1]
        if id(value) not in self._copied:
            return value
        made = self._made(value)
        self._known[id(value)] = (value, made)
        return made

    def _shell(self, value: Any, shell: Any) -> Any:
        """Notes what stands for `value` before it is filled, since what it holds may hold it in turn."""
        self._known[id(value)] = (value, shell)
        return shell

    def _made(self, value: Any) -> Any:
        kind = kind_of(value)
        if kind == "nnx":
            self.of_nnx = True
            return nnx_in_evaluation(value)
        if kind == "graphdef":
            return graphdef_in_evaluation(value)
        if id(value) in self._jitted:
            # Its inner function alone matters here.
            return self._of(self._jitted[id(value)])
        if isinstance(value, functools.partial):
            kind_of_partial = type(value)
            keywords = {n: self._of(v) for n, v in value.keywords.items()}
            return kind_of_partial(self._of(value.func), *(self._of(a) for a in value.args), **keywords)
        if isinstance(value, MethodType):
            return MethodType(self._of(value.__func__), self._of(value.__self__))
        if isinstance(value, FunctionType):
            return self._function(value)
        if type(value) is tuple:
            return tuple(self._of(v) for v in value)
        return self._object(value)

    def _object(self, value: Any) -> Any:
        """A copy of a container or of an object with attributes; the object itself where it cannot be copied so."""
        cls = type(value)
        if isinstance(value, tuple):
            found: Any = tuple.__new__(cls, [self._of(v) for v in value])
        else:
            found = _empty(value)
            if found is None:
                return value
            self._shell(value, found)
            if isinstance(value, dict):
                for key, part in value.items():
                    dict.__setitem__(found, key, self._of(part))
            elif isinstance(value, list | deque):
                for i, part in enumerate(value):
                    (list if isinstance(value, list) else deque).__setitem__(found, i, self._of(part))
        for name in slots_of(cls):
            if hasattr(value, name):
                object.__setattr__(found, name, self._of(getattr(value, name)))
        own = getattr(found, "__dict__", None)
        if own is not None:
            own.update({n: self._of(v) for n, v in vars(value).items()})
            if kind_of(value) == "equinox" and own.get("inference") is False:
                own["inference"] = True
        return found

    def _function(self, function: FunctionType) -> Any:
        names, code = function.__globals__, function.__code__
        own = not is_library(str(names.get("__name__", "")))
        paths = paths_in(code)
        used = [n for n in {p[0] for p in paths} if n in names] if own else []
        if any(self._changes(names[n], within(paths, n)) for n in used):
            names = dict(names)
        cells = tuple(CellType() for _ in code.co_freevars)
        copied = self._shell(function, FunctionType(code, names, function.__name__, None, cells))
        for name, old, new in zip(code.co_freevars, function.__closure__ or (), cells, strict=True):
            # A cell may be empty: a name that is not bound yet.
            with contextlib.suppress(ValueError):
                new.cell_contents = self._named(old.cell_contents, within(paths, f".{name}"))
        defaults = {n: self._named(v, within(paths, f".{n}")) for n, v in defaults_of(function).items()}
        if function.__kwdefaults__:
            copied.__kwdefaults__ = {n: defaults.pop(n) for n in function.__kwdefaults__}
        copied.__defaults__ = tuple(defaults.values()) or None
        if names is not function.__globals__:
            names.update({n: self._named(names[n], within(paths, n)) for n in used})
        copied.__module__, copied.__qualname__, copied.__doc__ = (
            function.__module__,
            function.__qualname__,
            function.__doc__,
        )
        # What jax.vmap and others wrap is told by __wrapped__, from which the signature is read.
        vars(copied).update({n: self._of(v) for n, v in vars(function).items()})
        return copied

    def _changes(self, value: Any, paths: Paths) -> bool:
        if not is_own_module(value):
            return id(value) in self._copied
        held = vars(value)
        return any(self._changes(held[p[0]], within(paths, p[0])) for p in paths if p[0] in held)

    def _named(self, value: Any, paths: Paths) -> Any:
        """What stands for a value of which these attributes are taken: a module (a file) is copied with what they name."""
        if not is_own_module(value) or not self._changes(value, paths):
            return self._of(value)
        copied = ModuleType(value.__name__)
        vars(copied).update(vars(value))
        for name in {p[0] for p in paths} & set(vars(value)):
            setattr(copied, name, self._named(vars(value)[name], within(paths, name)))
        return copied


def replaced(value: Any, old: Any, new: Any) -> Any:
    """`value`, such as ``jax.vmap(old)``, with `new` in the place of `old`, and what it holds in evaluation mode."""
    return Copies({id(old): (old, new)}).of(value)


def _held(value: Any) -> list[Any]:
    """What is looked through for modules to copy, and made again around their copies."""
    kind = kind_of(value)
    if isinstance(value, (*_LEFT, Bound)) or is_array(value) or kind not in (None, "equinox"):
        return []
    if isinstance(value, functools.partial | MethodType | FunctionType):
        # Not the other methods of a bound method's class.
        return [value.__self__, value.__func__] if isinstance(value, MethodType) else _unnumbered(parts_of(value))
    if packages_of(value) & {*OTHERS} or _is_inert(type(value)):
        return []
    found: list[Any] = []
    if isinstance(value, dict):
        found = [*value.values()]
    elif isinstance(value, list | tuple | deque) and len(value) <= _MODULES:
        found = [*value]
    return _unnumbered((*found, *attributes_of(value).values()))


def _unnumbered(parts: Iterable[Any]) -> list[Any]:
    return [p for p in parts if not isinstance(p, _LEFT)]


_LEFT = (bool, int, float, complex, str, bytes, type(None), np.ndarray, np.generic, type, ModuleType)
_HOLDERS = ("builtins", "types", "argparse", "collections")
"""The modules of the standard library whose objects hold what the user puts into them."""


def _is_inert(cls: type) -> bool:
    """Whether objects of a class are no holders of modules: those of the standard library, such as loggers and locks."""
    top = cls.__module__.partition(".")[0]
    return top in ("jaxlib", "numpy") or (top in sys.stdlib_module_names and top != "__main__" and top not in _HOLDERS)


def _empty(value: Any) -> Any:
    """An object of the class of `value` whose attributes are still to be set; ``None`` where none can be made."""
    cls = type(value)
    if hasattr(cls, "__del__"):  # which may close what both hold
        return None
    try:
        if isinstance(value, list | dict | deque | SimpleNamespace):
            return copy.copy(value)
        return object.__new__(cls)
    except Exception as err:
        # What cannot be copied is told by `require_evaluation`, where that matters.
        log.debug("a %s cannot be copied: %s", cls.__name__, err)
        return None
