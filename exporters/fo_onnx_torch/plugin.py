"""The torch exporter as the core sees it. What imports torch is imported by the methods, once they are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.exporter import Devices, NativePath
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.runner import RawModel
from fo_onnx.contracts.spec import InputSignature, ModelSpec


class TorchExporter:
    """Modules, ScriptModules, compiled modules, and functions over tensors."""

    name = "torch"
    modules = ("torch",)
    suffixes = (".pt", ".pth", ".pt2")

    def accepts(self, model: Any) -> bool:
        """Return whether `model` is a module, or a function whose closure or globals hold torch."""
        from .detect import is_torch_model

        return is_torch_model(model)

    def opens(self, path: Path) -> bool:
        """Return whether the path ends like a file of torch."""
        return path.suffix.lower() in self.suffixes

    def signature(self, model: Any) -> InputSignature | None:
        """Return the parameters of the module's ``forward``, or of the function."""
        from .detect import signature_of

        return signature_of(model)

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Write `model` to `path` by ``torch.onnx.export``."""
        from .export import export

        return export(model, example, path, options, output)

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """Return the model in torch, in float32."""
        from .native import open_native

        return open_native(model, example, device, options, output)

    def native_paths(
        self, model: Any, example: Inputs, options: ModelOptions, output: OutputOptions
    ) -> Sequence[NativePath]:
        """Return eager execution and ``torch.compile``."""
        from .native_paths import native_paths

        return native_paths(model, example, options, output)

    def fingerprint(self, model: Any, example: Inputs) -> str:
        """Return a digest of the model's classes, weights and plain attributes."""
        from .identity import fingerprint

        return fingerprint(model)

    def versions(self) -> dict[str, str]:
        """Return the version of torch."""
        import torch

        return {"torch": str(torch.__version__)}

    def load(self, path: Path, *, trust: bool) -> Any:
        """Return the module in a ``.pt`` file, which is a pickle."""
        from .files import load

        return load(path, trust=trust)

    def load_weights(self, model: Any, path: Path) -> None:
        """Fill `model` from safetensors or a state dict."""
        from .files import load_weights

        load_weights(model, path)
