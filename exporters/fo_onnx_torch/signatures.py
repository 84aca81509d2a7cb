"""What can be told of a torch model without running it, and without importing torch: its inputs, and what it holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from fo_onnx import introspection
from fo_onnx.calls import Call
from fo_onnx.calls import call_of as _call_of
from fo_onnx.spec import InputSignature


def unwrapped(model: Any) -> Any:
    """The module within ``torch.compile`` or ``DataParallel``, or the function within ``torch.compile``."""
    while True:
        inner = getattr(model, "_orig_mod", None) or getattr(model, "_torchdynamo_orig_callable", None)
        if inner is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = model.module
        if inner is None:
            return model
        model = inner


def signature_of(model: Any) -> InputSignature | None:
    """The names of a model's parameters, without ``self``; ``None`` where they cannot be told."""
    forward = _forward(model)
    schema = getattr(forward, "schema", None)
    if schema is not None:
        arguments = [a for a in schema.arguments if a.name != "self"]
        required = tuple(a.name for a in arguments if not a.has_default_value())
        return InputSignature(required, tuple(a.name for a in arguments if a.has_default_value()))
    return introspection.signature_of(forward)


def call_of(model: Any, keys: Sequence[str]) -> Call:
    """How `model` takes inputs with these keys."""
    return _call_of(signature_of(model), keys, takes_keywords=introspection.takes_keywords(_forward(model)))


def held(function: Any) -> Iterator[Any]:
    """What a function, compiled or not, has in its hands."""
    yield from introspection.held(unwrapped(function))


def is_torch(value: Any, torch: Any) -> bool:
    """Whether a value is a module, a tensor, or torch itself; a Keras model on the torch backend is Keras's."""
    if isinstance(value, torch.nn.Module):
        return not any(c.__module__.partition(".")[0] == "keras" for c in type(value).__mro__)
    return value is torch or value is torch.nn.functional or isinstance(value, torch.Tensor)


def _forward(model: Any) -> Any:
    model = unwrapped(model)
    return getattr(model, "forward", model)
