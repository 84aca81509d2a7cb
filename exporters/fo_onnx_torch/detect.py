"""Recognises torch's models, and finds the inputs that they take and the values that they have at hand."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch

from fo_onnx.contracts.spec import InputSignature
from fo_onnx.plugin_kit import captured
from fo_onnx.plugin_kit.calling import Call, plan_call


def is_torch_model(model: Any) -> bool:
    """Return whether `model` is a module, an exported program, or a function that has something of torch's at hand."""
    if isinstance(model, torch.nn.Module):
        return _is_torch(model)
    if isinstance(model, torch.jit.ScriptFunction | torch.export.ExportedProgram):
        return True
    return callable(model) and any(map(_is_torch, captured_values(model)))


def _is_torch(value: Any) -> bool:
    """Return whether a value is a module, a tensor, or torch itself; a Keras model on the torch backend is Keras's."""
    if isinstance(value, torch.nn.Module):
        return not any(c.__module__.partition(".")[0] == "keras" for c in type(value).__mro__)
    return value is torch or value is torch.nn.functional or isinstance(value, torch.Tensor)


def unwrap(model: Any) -> Any:
    """Return the module within ``torch.compile`` or ``DataParallel``, or the function within ``torch.compile``."""
    while True:
        inner = _within_compile(model)
        if inner is None and type(model).__name__ in ("DataParallel", "DistributedDataParallel"):
            inner = model.module
        if inner is None:
            return model
        model = inner


def is_compiled(model: Any) -> bool:
    """Return whether a model or function is what ``torch.compile`` returned."""
    return _within_compile(model) is not None


def _within_compile(model: Any) -> Any:
    """Return the module or function within ``torch.compile``, ``None`` if the model is not of it."""
    return getattr(model, "_orig_mod", None) or getattr(model, "_torchdynamo_orig_callable", None)


def captured_values(function: Any) -> Iterator[Any]:
    """Yield what a function, compiled or decorated or not, has at hand: closure, globals, arguments of a partial."""
    function = unwrap(function)
    if isinstance(function, functools.partial):
        yield function.func
    yield from captured.captured_values(function)
    wrapped = getattr(function, "__wrapped__", None)
    if wrapped is not None:
        yield from captured_values(wrapped)


def signature_of(model: Any) -> InputSignature | None:
    """Return the names of a model's parameters, without ``self``; ``None`` if they are not known."""
    forward = _forward_of(model)
    schema = getattr(forward, "schema", None)  # of a ScriptModule
    if schema is not None:
        arguments = [a for a in schema.arguments if a.name != "self"]
        required = tuple(a.name for a in arguments if not a.has_default_value())
        return InputSignature(required, tuple(a.name for a in arguments if a.has_default_value()))
    # The keywords of transformers' own models are options, and no inputs; transformers' Trainer leaves such columns out too.
    return captured.signature_of(forward, ignore_keywords=_is_of_transformers(forward))


def call_of(model: Any, keys: Sequence[str], runs: Callable[[Call], bool]) -> Call:
    """Return how `model` takes inputs with these keys; `runs` says whether it takes a lone column of another name in a form."""
    signature = signature_of(model)
    call = plan_call(signature, keys, takes_keywords=captured.takes_keywords(_forward_of(model)), runs=runs)
    if call.form != "keywords" or signature is None or not _is_called_by_position(unwrap(model)):
        return call
    named = (*signature.required, *signature.optional)
    in_order = tuple(sorted(call.keys, key=lambda key: named.index(key.split(".")[0])))
    return Call(in_order, in_order, "positional")


def _is_called_by_position(model: Any) -> bool:
    """Return whether a program was exported from a call without keywords, and so takes none."""
    if not isinstance(model, torch.export.ExportedProgram) or model.call_spec.in_spec is None:
        return False
    _, keywords = model.call_spec.in_spec.children()
    return int(keywords.num_leaves) == 0


def _is_of_transformers(forward: Any) -> bool:
    return (getattr(forward, "__module__", None) or "").startswith("transformers.")


def _forward_of(model: Any) -> Any:
    model = unwrap(model)
    if isinstance(model, torch.export.ExportedProgram):
        return model.module().forward
    if isinstance(model, functools.partial):
        # Of a module's own call there are no names to see.
        return functools.partial(_forward_of(model.func), *model.args, **model.keywords)
    return getattr(model, "forward", model)
