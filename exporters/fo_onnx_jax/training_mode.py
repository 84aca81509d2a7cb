"""Modules in training mode: which they are in each of JAX's libraries, and what is the same in evaluation mode."""

from __future__ import annotations

import dataclasses
from typing import Any

from fo_onnx.errors import ModelError

from .models import kind_of, name_of
from .references import reachable

_TRAINING = ("deterministic", "use_running_average")
"""Attributes of flax' modules that are false in training mode."""
MOST = 50_000
"""About so many values are looked at for modules in training mode."""


def is_changed(value: Any) -> bool:
    """Whether a value is a module to be copied: every one of nnx, which calls may change, and others in training mode."""
    return kind_of(value) == "nnx" or is_training(value)


def is_training(value: Any) -> bool:
    """Whether a module itself, not those in it, is in training mode."""
    kind = kind_of(value)
    if kind == "nnx":
        return any(getattr(value, n, None) is False for n in _TRAINING)
    if kind == "graphdef":
        return any(n in _TRAINING and getattr(a, "value", None) is False for n, a in value.attributes)
    return kind == "equinox" and getattr(value, "inference", None) is False


def require_evaluation(model: Any) -> None:
    """Raises a `ModelError` where a model would run a module in training mode, which no copy could be made of."""
    modules = [v for v in reachable(model, MOST) if kind_of(v) in ("nnx", "equinox", "graphdef")]
    if not any(is_training(m) for m in modules):
        return
    # The nearest is the one that the user knows; not the dropout within it.
    holding = [m for m in modules if any(is_training(v) for v in reachable(m, MOST))]
    module = next((m for m in holding if not type(m).__name__.startswith("_")), holding[0])
    todo = {
        "nnx": "Call .eval() on it first (and .train() before you train on).",
        "equinox": "Give it through equinox.nn.inference_mode(model) first.",
        "graphdef": "Call .eval() on its module before nnx.split.",
    }[str(kind_of(module))]
    raise ModelError(
        f"{name_of(model)} reaches a {type(module).__name__} in training mode, in a way that fo_onnx cannot put a copy in "
        f"evaluation mode in its place. {todo}"
    )


def nnx_in_evaluation(module: Any) -> Any:
    """A copy of an nnx module in evaluation mode, with variables of its own."""
    from flax import nnx

    graph, state = nnx.split(module)
    copied = nnx.merge(graph, _fresh(state))
    copied.eval()
    return copied


def graphdef_in_evaluation(graph: Any) -> Any:
    """What ``nnx.split`` gave of a module beside its state, in evaluation mode."""

    def of(name: Any, held: Any) -> Any:
        trains = name in _TRAINING and getattr(held, "value", None) is False
        return dataclasses.replace(held, value=True) if trains else held

    return dataclasses.replace(graph, attributes=[(n, of(n, held)) for n, held in graph.attributes])


def _fresh(state: Any) -> Any:
    """A state whose variables are new ones: ``nnx.merge`` of flax 0.12 puts those that it is given into the module."""
    import jax

    return jax.tree.map(lambda array: array, state)
