"""Tensors, datasets and loaders of torch for the guide's PyTorch module."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset

from fo_onnx.contracts.batch import Array

from .devices import find_device
from .tensors import to_numpy, to_tensor

__all__ = ["DataLoader", "Dataset", "TorchTensors", "batches"]


class TorchTensors:
    """torch tensors for the generators of the guide; see `fo_onnx.data_generator.tensors.Tensors`."""

    def is_tensor(self, value: Any) -> bool:
        """Return whether a value is a torch tensor."""
        return isinstance(value, torch.Tensor)

    def array(self, value: Any) -> Array:
        """Return a tensor, or anything else that numpy understands, as an array."""
        return to_numpy(value) if self.is_tensor(value) else np.asarray(value)

    def tensor(self, array: Array, like: Any = None) -> torch.Tensor:
        """Return an array as a tensor, on the device of `like` if that is a tensor."""
        return to_tensor(array, like.device if self.is_tensor(like) else "cpu")

    def moved(self, tensor: Any, device: str) -> torch.Tensor:
        """Return a tensor on a device. Raises `DeviceError`."""
        placed: torch.Tensor = tensor.to(find_device(device))
        return placed

    def parameters(self, model: Any) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield copies of a module's parameters by name, on their devices."""
        if isinstance(model, torch.nn.Module):
            for name, parameter in model.named_parameters():
                yield name, parameter.detach().clone()


def batches(data: Any, batch_size: int) -> Any:
    """Return a loader over a map-style dataset, in its order; anything else as it is."""
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return DataLoader(data, batch_size=batch_size)
    return data
