"""The torch exporter as the core sees it. torch itself is imported only when a torch model is there."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any, NoReturn

from fo_onnx.errors import OptionError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Devices, Inputs, RawModel
from fo_onnx.spec import InputSignature, ModelSpec

from .signatures import held, is_torch, signature_of


class TorchExporter:
    """Modules, ScriptModules, compiled modules, and functions over tensors."""

    name = "torch"
    suffixes = (".pt", ".pth", ".pt2")

    def accepts(self, model: Any) -> bool:
        """Whether `model` is a module, or a function whose closure or globals hold torch."""
        torch = sys.modules.get("torch")
        if torch is None:
            return False
        if isinstance(model, torch.nn.Module):
            return is_torch(model, torch)
        if isinstance(model, torch.jit.ScriptFunction):
            return True
        return callable(model) and any(is_torch(value, torch) for value in held(model))

    def opens(self, path: Path) -> bool:
        """Whether it ends like a file of torch."""
        return path.suffix.lower() in self.suffixes

    def bound(self, model: Any, params: Any) -> NoReturn:
        """Raises an `OptionError`."""
        raise OptionError(
            f"params= was given for {type(model).__name__}, and a torch model holds its own. Load them with "
            "model.load_state_dict(params) and leave params= out."
        )

    def signature(self, model: Any) -> InputSignature | None:
        """The parameters of the module's ``forward``, or of the function."""
        return signature_of(model)

    def native_only(self, model: Any, example: Inputs) -> None:
        """ONNX is the first choice."""

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Writes `model` to `path` by ``torch.onnx.export``."""
        from .conversion import export

        return export(model, example, path, options, output)

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
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
