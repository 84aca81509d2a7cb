"""Models in evaluation mode, while the caller's stay as they are.

Modules of nnx and equinox carry flags for it, which their libraries set on a copy: of a module that is given itself, or under
``jax.jit``, ``jax.vmap`` and ``functools.partial``. A module that a function holds is the user's to switch. Modules of linen and
haiku know evaluation mode by an argument.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from types import MethodType
from typing import Any

from fo_onnx.errors import ModelError

from .detect import kind_of, name_of
from .parameters import require_params
from .references import rewrap, walk
from .signature import mode_arguments

_TRAINING_FLAGS = ("deterministic", "use_running_average")
"""Attributes of nnx modules that are false in training mode."""
_DROPOUT_RATES = ("p", "rate", "dropout_rate")
"""Attributes of modules that drop values in training mode: the share that they drop."""
_CURES = {
    "nnx": "Call .eval() on it first (and .train() before you train on).",
    "equinox": "Give it through equinox.nn.inference_mode(model) first.",
    "graphdef": "Call .eval() on its module before nnx.split.",
}


def function_of(model: Any) -> Callable[..., Any]:
    """Return `model` as a function of its inputs, in evaluation mode and free of side effects.

    Arguments that choose between training and inference (``train``, ``deterministic``, …) get the value that means inference,
    whatever their default; other arguments that are not inputs keep their defaults.

    Raises:
        ModelError: Its parameters are missing, or it holds a module in training mode deeper than a copy is made of.
    """
    model = require_params(model)
    modes = mode_arguments(model)
    function: Callable[..., Any] = rewrap(model, _evaluate)
    _require_evaluation(function, name_of(model))
    return functools.partial(function, **modes) if modes else function


def _evaluate(model: Any) -> Any:
    """Return a module, or a method of one, in evaluation mode; anything else as it is."""
    module, method = (model.__self__, model.__func__) if isinstance(model, MethodType) else (model, None)
    kind = kind_of(module)
    if kind == "nnx":
        return _call_on_copies(module, method)
    if kind == "equinox" and any(_is_training(part) for part in walk(module)):
        import equinox

        evaluated = equinox.nn.inference_mode(module)
        return evaluated if method is None else MethodType(method, evaluated)
    return model


def _call_on_copies(module: Any, method: Callable[..., Any] | None) -> Callable[..., Any]:
    """Return an nnx module in evaluation mode as a function that leaves no trace: each call works on a fresh copy.

    A module that counts its random numbers (``nnx.RNN`` does, even if it needs none) refuses to be called under a
    transformation that it was made outside of (flax.errors.TraceContextError).
    """
    from flax import nnx

    # The library's own call switches a copy; the caller's module stays as it is.
    evaluated = nnx.clone(module)
    evaluated.eval()

    def call(*args: Any, **kwargs: Any) -> Any:
        copy = nnx.clone(evaluated)
        return copy(*args, **kwargs) if method is None else method(copy, *args, **kwargs)

    return call


def _require_evaluation(function: Any, name: str) -> None:
    """Raise a `ModelError` if a function would run a module in training mode."""
    modules = [v for v in walk(function) if kind_of(v) in _CURES]
    if not any(map(_is_training, modules)):
        return
    # The nearest is the one that the user knows, not the dropout within it.
    holders = [m for m in modules if any(map(_is_training, walk(m)))]
    module = next((m for m in holders if not type(m).__name__.startswith("_")), holders[0])
    raise ModelError(
        f"{name} reaches a {type(module).__name__} in training mode. fo_onnx puts a copy in evaluation mode in its place only "
        f"if the module is given itself, or under jax.jit, jax.vmap or functools.partial. {_CURES[str(kind_of(module))]}"
    )


def _is_training(value: Any) -> bool:
    """Return whether a module itself, not those in it, is in training mode, and computes something else in it."""
    kind = kind_of(value)
    if kind == "graphdef":
        return any(n in _TRAINING_FLAGS and getattr(a, "value", None) is False for n, a in value.attributes)
    # Attention layers hold a dropout that drops nothing, and are used without switching it.
    rates = [getattr(value, name, None) for name in _DROPOUT_RATES]
    if any(isinstance(rate, int | float) and rate == 0 for rate in rates):
        return False
    flags = {"nnx": _TRAINING_FLAGS, "equinox": ("inference",)}.get(str(kind), ())
    return any(getattr(value, flag, None) is False for flag in flags)
