"""torch models as float32 modules in evaluation mode, left as they were found."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from typing import Any

import torch

from .signatures import held, unwrapped

HALVES = (torch.float16, torch.bfloat16)


class FunctionModule(torch.nn.Module):
    """A function over tensors as a module; the modules it holds are registered, so that their weights are seen."""

    def __init__(self, function: Any) -> None:
        super().__init__()
        self._function = function
        inside = [m for m in held(function) if isinstance(m, torch.nn.Module)]
        self.held = torch.nn.ModuleList(inside)

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the function gives."""
        return self._function(*args, **kwargs)

    @property
    def function(self) -> Any:
        """The function."""
        return self._function


def as_module(model: Any) -> torch.nn.Module:
    """`model` as a module: unwrapped from ``torch.compile``, or a function made one."""
    model = unwrapped(model)
    return model if isinstance(model, torch.nn.Module) else FunctionModule(model)


def is_half(module: torch.nn.Module) -> bool:
    """Whether a module has weights of half precision."""
    return any(t.dtype in HALVES for t in _state(module))


def float_dtype(module: torch.nn.Module) -> torch.dtype:
    """The dtype of a module's floating-point weights; float32 where it has none."""
    return next((t.dtype for t in _state(module) if t.is_floating_point()), torch.float32)


def device_of(module: torch.nn.Module) -> torch.device:
    """Where a module's weights are."""
    return next((t.device for t in _state(module)), torch.device("cpu"))


def weight_bytes(module: torch.nn.Module) -> int:
    """What a module's weights take."""
    return sum(t.numel() * t.element_size() for t in _state(module))


def float32_copy(module: torch.nn.Module) -> torch.nn.Module:
    """A copy of a module of half precision in float32."""
    return copy.deepcopy(module).float()


@contextlib.contextmanager
def evaluation_mode(module: torch.nn.Module) -> Iterator[None]:
    """Puts a module into evaluation mode, and each of its parts back into the mode it was in."""
    training = [m for m in module.modules() if m.training]
    if training:
        module.eval()
    try:
        yield
    finally:
        for part in training:
            # Not part.train(), which would change its parts as well.
            part.training = True


def _state(module: torch.nn.Module) -> Iterator[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()
