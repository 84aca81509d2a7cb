"""torch models in torch: the reference of every comparison, and the runner of what ONNX cannot run."""

from __future__ import annotations

import copy
from typing import Any

import torch

from fo_onnx.contracts.batch import Array, Inputs
from fo_onnx.contracts.exporter import Devices
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import FoOnnxError, RunError

from .devices import find_device
from .modules import FlatModule, device_of, dtype_name, evaluation_mode, float32_copy, is_half
from .tensors import to_numpy


class TorchModel:
    """A torch model with arrays in and an array out."""

    def __init__(self, module: FlatModule, spec: ModelSpec, original: TorchModel | None = None) -> None:
        self.spec, self.original = spec, original
        self._module: FlatModule | None = module
        self.device = str(device_of(module))

    def forward(self, inputs: Inputs) -> Array:
        """Return the raw output (n, …) in evaluation mode.

        Raises:
            RunError: The model refuses the inputs.
            OutputError: It gives no tensor.
        """
        module = self._module
        if module is None:
            raise RunError(f"running {self.spec.name} in torch failed: the model was closed.")
        tensors = module.to_tensors(inputs)
        try:
            with evaluation_mode(module), torch.inference_mode():
                raw = module(*tensors)
        except FoOnnxError:
            raise
        except Exception as err:
            named = zip(module.call.names, tensors, strict=True)
            shapes = ", ".join(f"{n}: {dtype_name(t)} {tuple(t.shape)}" for n, t in named)
            raise RunError(
                f"running {self.spec.name} in torch on {shapes} failed: {type(err).__name__}: {err}"
            ) from err
        return to_numpy(raw)

    def close(self) -> None:
        """Let the module go."""
        self._module = None


def open_native(
    model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
) -> TorchModel:
    """Return `model` as a `TorchModel` in float32 on a device; see `fo_onnx.contracts.Exporter.native`."""
    module = FlatModule(model, example, options, output)
    named = zip(module.call.names, example.values(), strict=True)
    inputs = tuple(TensorSpec(n, str(a.dtype), (None, *a.shape[1:])) for n, a in named)
    raw_output = TensorSpec("output", "float32", ())
    spec = ModelSpec(inputs=inputs, output=raw_output, name=module.model_name, framework="torch")
    target = device_of(module) if device == "auto" else find_device(device)
    if target != device_of(module):
        # A copy: the caller's module stays where it is.
        module = copy.deepcopy(module).to(target)
    opened = TorchModel(module, spec)
    return TorchModel(float32_copy(module), spec, original=opened) if is_half(module) else opened
