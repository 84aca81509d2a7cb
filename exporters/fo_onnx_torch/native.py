"""torch models in torch: the reference of every comparison, and the runner where ONNX cannot stand in."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fo_onnx.calls import Call, pick_output
from fo_onnx.errors import DeviceError, FoOnnxError, RunError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Devices, Inputs
from fo_onnx.spec import ModelSpec, TensorSpec

from .modules import as_module, device_of, evaluation_mode, float32_copy, float_dtype, is_half
from .signatures import call_of
from .tensors import to_numpy, to_tensor


class TorchModel:
    """A torch model with arrays in and an array out."""

    def __init__(self, module: torch.nn.Module, call: Call, output_name: str | None, spec: ModelSpec) -> None:
        self.spec = spec
        self.original: TorchModel | None = None
        self._module, self._call, self._output_name = module, call, output_name
        self._dtype, self._device = float_dtype(module), device_of(module)
        self.device = str(self._device)

    def forward(self, inputs: Inputs) -> NDArray[Any]:
        """The raw output (n, …) in evaluation mode.

        Raises:
            RunError: The model refuses the inputs.
            OutputError: It gives no tensor.
        """
        tensors = [self._tensor(array) for array in self._call.arrays(inputs)]
        args, kwargs = self._call.arguments(tensors)
        try:
            with evaluation_mode(self._module), torch.inference_mode():
                found = pick_output(self._module(*args, **kwargs), self._output_name, self.spec.name, torch.is_tensor)
        except FoOnnxError:
            raise
        except Exception as err:
            shapes = ", ".join(
                f"{n}: {str(t.dtype).removeprefix('torch.')} {tuple(t.shape)}"
                for n, t in zip(self._call.names, tensors, strict=True)
            )
            raise RunError(
                f"running {self.spec.name} in torch on {shapes} failed: {type(err).__name__}: {err}"
            ) from err
        return np.asarray(to_numpy(found))

    def close(self) -> None:
        """Lets the module go."""
        self._module = torch.nn.Identity()

    def _tensor(self, array: NDArray[Any]) -> torch.Tensor:
        tensor = to_tensor(array, self._device)
        # A copy, always: the tensor shares the caller's memory, and a model may work in place.
        return tensor.to(self._dtype if tensor.is_floating_point() else tensor.dtype, copy=True)


def open_native(
    model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
) -> TorchModel:
    """`model` as a `TorchModel` in float32 on a device; see `fo_onnx.protocols.Exporter.native`."""
    module = as_module(model)
    call = call_of(model, list(example))
    who = options.model_name or type(module).__name__
    inputs = tuple(
        TensorSpec(n, str(a.dtype), (None, *a.shape[1:])) for n, a in zip(call.names, example.values(), strict=True)
    )
    spec = ModelSpec(inputs=inputs, output=TensorSpec("output", "float32", ()), name=who, framework="torch")
    target = device_of(module) if device == "auto" else torch_device(device)
    placed = module if target == device_of(module) else copy.deepcopy(module).to(target)
    if not is_half(module):
        return TorchModel(placed, call, output.output_name, spec)
    found = TorchModel(float32_copy(placed), call, output.output_name, spec)
    found.original = TorchModel(placed, call, output.output_name, spec)
    return found


def torch_device(name: Devices) -> torch.device:
    """The device of torch by the core's name of it. Raises `DeviceError`, listing those that are there."""
    if not isinstance(name, str):
        raise DeviceError(f"device={list(name)}: several devices were asked for, and the torch runner takes one.")
    kind = name.partition(":")[0]
    found = ["cpu", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]
    if name not in found:
        built = f"torch {torch.__version__}" + ("" if torch.version.cuda else " is built without CUDA, and")
        raise DeviceError(f"device={name!r} was asked for, but {built} has only {', '.join(found)}." + (
            "" if kind in ("cpu", "cuda") else " The torch runner knows cpu and cuda."))  # fmt: skip
    return torch.device(name)
