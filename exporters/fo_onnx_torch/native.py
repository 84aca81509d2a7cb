"""torch models in torch: the reference of every comparison, and the runner of what ONNX cannot run."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import torch

from fo_onnx.contracts.batch import Array, Inputs
from fo_onnx.contracts.exporter import Devices
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import DeviceError, FoOnnxError, RunError, first_line

from .detect import is_compiled
from .devices import find_device, one_thread
from .modules import FlatModule, device_of
from .precision import choose_dtypes, copy_module, dtype_name, float32_copy_that_runs, is_half
from .tensors import to_numpy


class TorchModel:
    """A torch model with arrays in and an array out."""

    def __init__(self, module: FlatModule, example: Inputs, original: TorchModel | None = None) -> None:
        """Take a module, rows that say what it takes, and the same model in its own precision if that is another."""
        self._dtypes: Sequence[torch.dtype] = choose_dtypes(module, example)
        inputs = tuple(
            TensorSpec(name, dtype_name(dtype), (None, *array.shape[1:]))
            for name, dtype, array in zip(module.call.names, self._dtypes, example.values(), strict=True)
        )
        self.spec = ModelSpec(
            inputs=inputs, output=TensorSpec("output", "float32", ()), class_names=module.class_names,
            name=module.model_name, framework="torch",
        )  # fmt: skip
        self.original = original
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
        tensors = module.to_tensors(inputs, self._dtypes)
        try:
            return to_numpy(module.run(tensors))
        except FoOnnxError:
            raise
        except Exception as err:
            named = zip(module.call.names, tensors, strict=True)
            shapes = ", ".join(f"{n}: {dtype_name(t.dtype)} {tuple(t.shape)}" for n, t in named)
            raise RunError(
                f"running {self.spec.name} in torch on {shapes} failed: {type(err).__name__}: {err}"
            ) from err

    def one_thread(self) -> AbstractContextManager[None]:
        """Let calls within run on one thread; see `fo_onnx.contracts.LimitsThreads`."""
        return one_thread()

    def close(self) -> None:
        """Let the module go."""
        self._module = None


def open_native(
    model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
) -> TorchModel:
    """Return `model` on a device, half precision in float32; see `fo_onnx.contracts.Exporter.native`."""
    module = FlatModule(model, example, options, output)
    target = device_of(module) if device == "auto" else find_device(device)
    is_moved = target != device_of(module)
    if is_moved:
        module = _move_copy(module, target)
    # What has no copy in float32 runs as it is.
    twin = float32_copy_that_runs(module, example) if is_half(module) else None
    if is_compiled(model) and not is_moved:
        module.run_compiled(model)
    opened = TorchModel(module, example)
    return opened if twin is None else TorchModel(twin, example, original=opened)


def _move_copy(module: FlatModule, target: torch.device) -> FlatModule:
    """Return a copy of a module on another device: the caller's stays where it is."""
    try:
        return copy_module(module).to(target)
    except Exception as err:
        raise DeviceError(
            f"{target} was asked for, and {module.model_name} is on {device_of(module)}; a copy there could not be "
            f"made ({first_line(err)}). Move the model there before it is given."
        ) from err
