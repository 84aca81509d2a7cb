"""torch models as modules of one form, in float32 and evaluation mode, left as they were before."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.plugin_kit.calling import pick_output

from .detect import call_of, captured_values, unwrap
from .tensors import to_tensor

HALVES = (torch.float16, torch.bfloat16)


class FunctionModule(torch.nn.Module):
    """A function over tensors as a module; the modules that it has at hand are registered, so that their weights are seen."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self.function = function
        self.captured = torch.nn.ModuleList(m for m in captured_values(function) if isinstance(m, torch.nn.Module))

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return what the function returns."""
        return self.function(*args, **kwargs)


class FlatModule(torch.nn.Module):
    """A model with flat tensors in and the one tensor with class scores out, which is run natively and exported alike.

    Args:
        model: A torch model.
        example: Inputs, for their names.
        options: The model's name.
        output: The output's name.
    """

    def __init__(self, model: Any, example: Inputs, options: ModelOptions, output: OutputOptions) -> None:
        super().__init__()
        # Has no mode of its own, so that it does not count as a part in training mode.
        self.training = False
        self.model = as_module(model)
        self.model_name = options.model_name or type(self.model).__name__
        self.call = call_of(model, list(example))
        self._output_name = output.output_name

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return the raw output (n, …)."""
        args, kwargs = self.call.arguments(tensors)
        returned = self.model(*args, **kwargs)
        raw: torch.Tensor = pick_output(returned, self._output_name, self.model_name, torch.is_tensor)
        return raw

    def to_tensors(self, inputs: Inputs) -> list[torch.Tensor]:
        """Return inputs as tensors on the model's device, floats in its own floating-point dtype."""
        dtype, device = float_dtype(self), device_of(self)
        tensors = [to_tensor(array, device) for array in self.call.arrays(inputs)]
        # A copy, always: the tensors share the caller's memory, and a model may work in place.
        return [t.to(dtype if t.is_floating_point() else t.dtype, copy=True) for t in tensors]


def as_module(model: Any) -> torch.nn.Module:
    """Return `model` as a module: unwrapped from ``torch.compile``, or a function in a `FunctionModule`."""
    model = unwrap(model)
    return model if isinstance(model, torch.nn.Module) else FunctionModule(model)


def is_half(module: torch.nn.Module) -> bool:
    """Return whether a module has weights of half precision."""
    return any(t.dtype in HALVES for t in _state_of(module))


def float_dtype(module: torch.nn.Module) -> torch.dtype:
    """Return the dtype of a module's floating-point weights; float32 if it has none."""
    return next((t.dtype for t in _state_of(module) if t.is_floating_point()), torch.float32)


def device_of(module: torch.nn.Module) -> torch.device:
    """Return the device of a module's weights."""
    return next((t.device for t in _state_of(module)), torch.device("cpu"))


def weight_bytes(module: torch.nn.Module) -> int:
    """Return the size of a module's weights."""
    return sum(t.numel() * t.element_size() for t in _state_of(module))


def float32_copy(module: FlatModule) -> FlatModule:
    """Return a copy of a module in float32."""
    return copy.deepcopy(module).float()


def dtype_name(tensor: torch.Tensor) -> str:
    """Return the name of a tensor's dtype, as numpy has it too."""
    return str(tensor.dtype).removeprefix("torch.")


@contextlib.contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Put a module into evaluation mode, and each of its parts back into its own mode at the end."""
    training = [m for m in module.modules() if m.training]
    if training:
        module.eval()
    try:
        yield
    finally:
        for part in training:
            # Not part.train(), which would change its parts as well.
            part.training = True


def _state_of(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()
