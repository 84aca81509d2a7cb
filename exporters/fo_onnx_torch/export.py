"""The torch exporter as the core sees it. torch itself is imported only when a torch model is there."""

from __future__ import annotations

import functools
import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Inputs, RawModel
from fo_onnx.spec import InputSignature, ModelSpec


class TorchExporter:
    """Modules, ScriptModules, compiled modules, and functions over tensors."""

    name = "torch"
    suffixes = (".pt", ".pth", ".pt2")

    def accepts(self, model: Any) -> bool:
        """Whether `model` is a module, or a function whose closure or globals hold torch."""
        torch = sys.modules.get("torch")
        if torch is None:
            return False
        if isinstance(model, (torch.nn.Module, torch.jit.ScriptFunction)):
            return True
        return callable(model) and any(_is_torch(value, torch) for value in _held(model))

    def signature(self, model: Any) -> InputSignature | None:
        """The parameters of the module's ``forward``, or of the function."""
        return signature_of(model)

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Writes `model` to `path` by ``torch.onnx.export``."""
        from .conversion import export

        return export(model, example, path, options, output)

    def native(
        self, model: Any, example: Inputs, device: str, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """The model in torch, in float32."""
        from .native import open_native

        return open_native(model, example, device, options, output)

    def fingerprint(self, model: Any) -> str:
        """A digest of the module's structure and weights."""
        from .files import fingerprint

        return fingerprint(model)

    def versions(self) -> dict[str, str]:
        """The version of torch."""
        import torch

        return {"torch": str(torch.__version__)}

    def load(self, path: Path, *, trust: bool) -> Any:
        """The module in a ``.pt`` file, which is a pickle."""
        from .files import load

        return load(path, trust=trust)

    def load_weights(self, model: Any, path: Path) -> None:
        """Fills `model` from safetensors or a state dict."""
        from .files import load_weights

        load_weights(model, path)


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


def _held(function: Any) -> Iterator[Any]:
    """What a function has in its hands: closure, the globals it names, arguments of a partial, a method's owner."""
    function = unwrapped(function)
    if isinstance(function, functools.partial):
        yield from (*function.args, *function.keywords.values())
        yield from _held(function.func)
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


def _is_torch(value: Any, torch: Any) -> bool:
    return value is torch or value is torch.nn.functional or isinstance(value, (torch.nn.Module, torch.Tensor))
