"""Between torch tensors and numpy arrays, sharing memory where that is possible and safe."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

Array = NDArray[Any]


def to_numpy(tensor: torch.Tensor) -> Array:
    """A tensor as an array of the same shape.

    bfloat16 and the 8-bit floats become float32, since numpy lacks them; sparse tensors become dense. The array shares
    the tensor's memory where it is a plain one on the CPU.
    """
    import torch

    tensor = tensor.detach()
    if tensor.layout is not torch.strided:
        tensor = tensor.to_dense()
    if tensor.dtype.is_floating_point and tensor.dtype not in (torch.float16, torch.float32, torch.float64):
        tensor = tensor.to(torch.float32)
    return tensor.cpu().resolve_conj().resolve_neg().numpy()


def to_tensor(array: Array, device: Any = "cpu") -> torch.Tensor:
    """An array as a tensor on `device`.

    Shares the memory of a writable array on the CPU. A read-only one is copied: torch has no read-only tensors, and a
    model that works in place would write into what must not be written to.
    """
    import torch

    native = array.dtype.newbyteorder("=")
    if not array.flags.writeable or array.dtype != native or any(s < 0 for s in array.strides):
        array = np.array(array, dtype=native, order="C")
    return torch.from_numpy(array).to(device)


class TorchTensors:
    """torch tensors for the generators of the guide; see `fo_onnx.data_generator.tensors.Tensors`."""

    def is_tensor(self, value: Any) -> bool:
        """Whether it is a torch tensor."""
        import torch

        return isinstance(value, torch.Tensor)

    def array(self, value: Any) -> Array:
        """A tensor, or anything else that numpy understands, as an array."""
        return to_numpy(value) if self.is_tensor(value) else np.asarray(value)

    def tensor(self, array: Array, like: Any = None) -> torch.Tensor:
        """An array as a tensor, on the device of `like` where that is a tensor."""
        return to_tensor(array, like.device if self.is_tensor(like) else "cpu")

    def rows(self, array: Array) -> list[torch.Tensor]:
        """The rows, each with memory of its own: a view is saved with all that it is a view of."""
        return [row.clone() for row in to_tensor(array)]

    def moved(self, tensor: torch.Tensor, device: str) -> torch.Tensor:
        """A tensor on a device. Raises `DeviceError`."""
        from .native import torch_device

        return tensor.to(torch_device(device))

    def parameters(self, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Copies of a module's parameters by name, on their devices."""
        import torch

        if isinstance(model, torch.nn.Module):
            for name, parameter in model.named_parameters():
                yield name, parameter.detach().clone()
