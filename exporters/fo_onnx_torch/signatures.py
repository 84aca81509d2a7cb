"""What can be told of a model without running it, and without importing torch: its inputs, and what it holds."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Iterator
from typing import Any

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
    model = unwrapped(model)
    forward = getattr(model, "forward", model)
    schema = getattr(forward, "schema", None)
    if schema is not None:
        arguments = [a for a in schema.arguments if a.name != "self"]
        required = tuple(a.name for a in arguments if not a.has_default_value())
        return InputSignature(required, tuple(a.name for a in arguments if a.has_default_value()))
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):
        return None
    named = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if len(named) < len(parameters):
        # *args and **kwargs take anything.
        return None
    required = tuple(p.name for p in named if p.default is p.empty)
    return InputSignature(required, tuple(p.name for p in named if p.default is not p.empty))


def held(function: Any) -> Iterator[Any]:
    """What a function has in its hands: closure, the globals it names, arguments of a partial, a method's owner."""
    function = unwrapped(function)
    if isinstance(function, functools.partial):
        yield from (*function.args, *function.keywords.values())
        yield from held(function.func)
        return
    if inspect.ismethod(function):
        yield function.__self__
    elif not inspect.isfunction(function):
        yield from vars(function).values() if hasattr(function, "__dict__") else ()
        function = getattr(type(function), "__call__", None)  # noqa: B004
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for cell in function.__closure__ or ():
        try:
            yield cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    yield from (function.__globals__[n] for n in code.co_names if n in function.__globals__)


def is_torch(value: Any, torch: Any) -> bool:
    """Whether a value is a module, a tensor, or torch itself."""
    return value is torch or value is torch.nn.functional or isinstance(value, (torch.nn.Module, torch.Tensor))
