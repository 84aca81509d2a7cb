"""The identity of a torch model: its classes with their code, its weights, and its plain attributes.

The mode of a module, its device and gradients do not count.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import torch

from fo_onnx.plugin_kit import digests

from .detect import captured_values
from .modules import FunctionModule, as_module, fixed_rows_of
from .tensors import to_numpy

_BOOKKEEPING = frozenset(vars(torch.nn.Module()))
"""Attributes that every module has, its mode among them."""


def fingerprint(model: Any) -> str:
    """Return a digest of a module, or of a function and the modules and tensors that it has at hand."""
    return digests.sha256_of(_of_model(as_module(model)))


def _of_model(module: torch.nn.Module) -> Iterator[bytes]:
    if isinstance(module, FunctionModule):
        yield from _of_function(module.function)
        module = module.captured
    # Programs of torch.export for other numbers of rows are other programs.
    if (rows := fixed_rows_of(module)) is not None:
        yield f"{rows} rows".encode()
    # Each part by its path, class and attributes; then the code of all classes, and the weights.
    parts = list(module.named_modules())
    for path, part in parts:
        yield f"{path}: {digests.qualified_name(type(part))}".encode()
        yield from _of_script(part) if isinstance(part, torch.jit.ScriptModule) else _of_attributes(part)
    yield from digests.of_class_code(kind for _, part in parts for kind in type(part).__mro__)
    # Buffers that are not persistent are missing in the state dict.
    for name, value in {**module.state_dict(), **dict(module.named_buffers(remove_duplicate=False))}.items():
        yield name.encode()
        yield from _of_value(value)


def _of_function(function: Any) -> Iterator[bytes]:
    if isinstance(function, torch.jit.ScriptFunction):
        yield from _of_script(function)
        return
    # The owner of a method counts as one of the modules, without its mode.
    bound = inspect.ismethod(function) and isinstance(function.__self__, torch.nn.Module)
    yield from digests.of_callable(function.__func__ if bound else function)
    for value in captured_values(function):
        if isinstance(value, torch.Tensor):
            yield from _of_value(value)


def _of_script(compiled: Any) -> Iterator[bytes]:
    """Yield the code of a ScriptModule's methods or of a ScriptFunction, and the tensors that are constants in it."""
    module = getattr(compiled, "_c", None)
    # A part may have no method called forward: an LSTM has one for each kind of input, and a list of modules none.
    for method in [compiled] if module is None else map(module._get_method, module._method_names()):
        yield method.code.encode()
        for node in method.graph.findAllNodes("prim::Constant"):
            if node.hasAttribute("value") and node.kindOf("value") == "t":
                yield from _of_value(node.t("value"))


def _of_attributes(module: torch.nn.Module) -> Iterator[bytes]:
    """Yield the attributes of a module that are no weights: numbers, text, tensors, functions; and its hooks."""
    for name, value in sorted(digests.without_assigned(vars(module), type(module)).items()):
        if name not in _BOOKKEEPING:
            yield name.encode()
            yield from _of_value(value)
    for hook in (*module._forward_pre_hooks.values(), *module._forward_hooks.values()):
        yield from _of_value(hook)


def _of_value(value: Any) -> Iterator[bytes]:
    if isinstance(value, torch.Tensor):
        yield str(value.dtype).encode()
        yield from digests.of_array(to_numpy(value))
    elif isinstance(value, tuple):
        # A quantised layer's weight and bias are one entry of its state.
        for item in value:
            yield from _of_value(item)
    elif callable(value) and not isinstance(value, torch.nn.Module):
        yield from _of_function(value)
    else:
        yield from digests.of_value(value)
