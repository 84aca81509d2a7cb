"""Models in evaluation mode: copies, so that the caller's stay as they are.

nnx and equinox modules carry flags for it, also where a function or a wrapper such as ``jax.vmap(model)`` holds them; a
function that holds one is made again around a copy. Other models are told by an argument.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import CellType, FunctionType, MethodType
from typing import Any

from .models import Bound, kind_of, mode_arguments, settled
from .references import is_library, references, within_filter_jit

_MODULES = 1000
"""Longer lists hold rows or numbers, and no modules."""


def function_of(model: Any) -> Callable[..., Any]:
    """`model` as a function of its inputs, in evaluation mode and free of side effects.

    Arguments of `fo_onnx_jax.models.MODES` (``train``, ``deterministic``, …) get the value that means inference, whatever their
    default; other arguments that are not inputs keep their defaults.

    Raises:
        ModelError: Its parameters are missing.
    """
    model = settled(model)
    modes = mode_arguments(model)
    copies = Copies()
    evaluated = copies.of(model)
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
    """Makes copies in evaluation mode, one of each module, however often it is held.

    Attributes:
        of_nnx: Whether there was an nnx module among what was copied.
    """

    def __init__(self) -> None:
        self.of_nnx = False
        self._known: dict[int, tuple[Any, Any]] = {}  # the original beside its copy, so that no id is given twice

    def of(self, value: Any) -> Any:
        """`value` with every nnx and equinox module that it holds in evaluation mode; itself where it holds none."""
        if id(value) not in self._known:
            self._known[id(value)] = (value, value)  # a function may hold itself
            self._known[id(value)] = (value, self._copied(value))
        return self._known[id(value)][1]

    def _copied(self, value: Any) -> Any:
        if isinstance(value, Bound):
            return value
        inner = within_filter_jit(value)
        if inner is not None:
            return self.of(inner)
        kind = kind_of(value)
        if kind in ("nnx", "equinox"):
            self.of_nnx |= kind == "nnx"
            return _in_evaluation(value)
        if isinstance(value, functools.partial):
            return self._partial(value)
        if isinstance(value, MethodType):
            return self._if_changed(value, [value.__self__], lambda new: MethodType(value.__func__, new[0]))
        if isinstance(value, FunctionType):
            return self._function(value)
        if type(value) in (list, tuple) and len(value) <= _MODULES:
            return self._if_changed(value, [*value], type(value))
        if type(value) is dict:
            return self._if_changed(value, [*value.values()], lambda new: dict(zip(value, new, strict=True)))
        inner = None if isinstance(value, type) or kind is not None else getattr(value, "__wrapped__", None)
        if inner is not None and self.of(inner) is not inner:
            # A jitted function, or one with derivatives of its own, whose inner function alone matters here.
            return self.of(inner)
        return value

    def _if_changed(self, value: Any, parts: list[Any], make: Callable[[list[Any]], Any]) -> Any:
        new = [self.of(p) for p in parts]
        return make(new) if any(a is not b for a, b in zip(new, parts, strict=True)) else value

    def _partial(self, value: functools.partial[Any]) -> Any:
        parts = [value.func, *value.args, *value.keywords.values()]
        stop = 1 + len(value.args)
        return self._if_changed(
            value,
            parts,
            lambda new: functools.partial(new[0], *new[1:stop], **dict(zip(value.keywords, new[stop:], strict=True))),
        )

    def _function(self, function: FunctionType) -> FunctionType:
        held = dict(references(function))
        new = {n: self.of(v) for n, v in held.items()}
        if all(new[n] is held[n] for n in held):
            return function
        free = function.__code__.co_freevars
        cells = tuple(
            CellType(new[n]) if n in new else cell for n, cell in zip(free, function.__closure__ or (), strict=True)
        )
        names = function.__globals__
        if not is_library(str(names.get("__name__", ""))):
            changed = {n: new[n] for n in held if n in names and n not in free and new[n] is not held[n]}
            names = {**names, **changed} if changed else names
        copied = FunctionType(function.__code__, names, function.__name__, function.__defaults__, cells)
        copied.__kwdefaults__ = function.__kwdefaults__
        # What jax.vmap and others wrap is told by __wrapped__, from which the signature is read.
        copied.__dict__.update(function.__dict__)
        return copied


def _in_evaluation(module: Any) -> Any:
    if kind_of(module) == "equinox":
        import equinox

        return equinox.nn.inference_mode(module)
    from flax import nnx

    graph, state = nnx.split(module)
    copied = nnx.merge(graph, _fresh(state))
    copied.eval()
    return copied


def _fresh(state: Any) -> Any:
    """A state whose variables are new ones: ``nnx.merge`` of flax 0.12 puts those that it is given into the module."""
    import jax

    return jax.tree.map(lambda array: array, state)
