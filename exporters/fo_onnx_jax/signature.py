"""The inputs of a JAX model, and the arguments that put it into inference."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import ModelError
from fo_onnx.plugin_kit import captured
from fo_onnx.plugin_kit.calling import Call, plan_call
from fo_onnx.plugin_kit.digests import is_library

from .detect import BoundModel, kind_of, name_of
from .parameters import require_params

_MODES = {
    "train": False, "training": False, "is_training": False, "deterministic": True, "inference": True,
    "use_running_average": True,
}  # fmt: skip
"""Arguments that choose between training and inference, and the value that means inference."""
_NO_INPUTS = ("key", "rng", "rngs")
"""Optional arguments of modules for random numbers, which a model in evaluation mode does not need."""


def signature_of(model: Any) -> InputSignature | None:
    """Return the names of the model's inputs, without arguments that choose between training and inference.

    Raises:
        ModelError: Its parameters are missing.
    """
    model = require_params(model)
    signature = captured.signature_of(_function_with_inputs(model))
    if signature is None:
        return None
    # Neither what is bound already nor what chooses the mode is an input.
    skip = model.skip if isinstance(model, BoundModel) else 0
    left_out = {*(*signature.required, *signature.optional)[:skip], *mode_arguments(model)}
    required = tuple(n for n in signature.required if n not in left_out)
    return InputSignature(required, tuple(n for n in signature.optional if n not in left_out | {*_NO_INPUTS}))


def mode_arguments(model: Any) -> dict[str, bool]:
    """Return the arguments that put a call of `model`, which has its parameters, into inference.

    An argument whose default is ``None`` is left alone: a flax module that merges it with an attribute of its own
    (``nn.merge_param``) refuses to get it twice.
    """
    try:
        parameters = inspect.signature(_function_with_inputs(model)).parameters
    except (TypeError, ValueError):
        return {}
    return {n: _MODES[n] for n, p in parameters.items() if n in _MODES and p.default is not None}


def call_of(model: Any, keys: list[str], runs: Callable[[Call], bool]) -> Call:
    """Return how `model` takes inputs with these keys; `runs` says whether it takes a lone column of another name in a form.

    Raises:
        ModelError: It takes more arguments than there are inputs, or its parameters are missing.
    """
    model = require_params(model)
    signature = signature_of(model)
    # A missing params= shows as an argument too many.
    inputs = {k.partition(".")[0] for k in keys}
    if signature is not None and all(k.isdecimal() for k in inputs) and len(signature.required) > len(inputs):
        raise ModelError(
            f"{name_of(model)}({', '.join(signature.required)}) takes {len(signature.required)} arguments, and the data have "
            f"{len(inputs)} input(s). Give its parameters, where the first argument stands for them, with params=."
        )
    takes_keywords = captured.takes_keywords(_function_with_inputs(model))
    return plan_call(signature, keys, takes_keywords=takes_keywords, runs=runs)


def _function_with_inputs(model: Any) -> Any:
    """Return a callable with the parameters that a model, which has its own, really takes.

    After ``functools.wraps`` `inspect.signature` gives the arguments of what is wrapped. They are right for a wrapper that passes
    on whatever it gets (``*args``), as that of ``jax.vmap`` does, and wrong for one with arguments of its own.
    """
    call = function = model.inner if isinstance(model, BoundModel) else model
    if not inspect.isroutine(function) and not isinstance(function, type) and kind_of(function) is None:
        # An object with a __call__ of the user's own, which may have been through functools.update_wrapper.
        method = inspect.getattr_static(type(function), "__call__", None)
        call = function.__call__ if inspect.isfunction(method) and not is_library(method.__module__ or "") else function
    try:
        own = inspect.signature(call, follow_wrapped=False)
    except (TypeError, ValueError):
        return function
    if any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in own.parameters.values()):
        return function

    def stand_in() -> None: ...

    stand_in.__signature__ = own  # type: ignore[attr-defined]
    return stand_in
