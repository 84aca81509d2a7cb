"""The guide's PyTorch module: torch models, datasets and loaders, torch rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fo_onnx_torch import training
from fo_onnx_torch.tensors import TorchTensors

from . import evaluating, generator, pairing

__all__ = ["FirstOrderDataGenerator", "FirstOrderDataset", "PyTorchDataGenerator", "output_dataloader"]


class FirstOrderDataGenerator(generator.FirstOrderDataGenerator):
    """Gives torch rows, for modules and callables over torch tensors; see the base class.

    With an `input_getter` a dataset is read through a ``DataLoader`` of `batch_size`, whose batches the function gets.
    """

    tensors = TorchTensors()
    framework = "torch"

    def readable(self, data: Any) -> Any:
        """A loader over a dataset where a function wants to see batches; else what the base class says."""
        data = super().readable(data)
        return training.batches(data, self.batch_size) if self.input_getter is not None else data

    def prepares_batch_inp(self, batch: Any) -> Any:
        """The model's input in a sample or a batch: by `input_getter`, else the first part of a tuple or list, else all of it."""
        if self.input_getter is None and isinstance(batch, list) and batch:
            return batch[0]
        return super().prepares_batch_inp(batch)


class FirstOrderDataset(pairing.FirstOrderDataset, training.Dataset[Any]):
    """A torch dataset whose items are (input, label, row), or (input, row) where samples carry no label."""

    tensors = TorchTensors()
    unpacked = (tuple, list)


class PyTorchDataGenerator(evaluating.DataGenerator):
    """A torch model and its dataset or loader; `generate` says how the one does on the other; see the base class."""

    generator = FirstOrderDataGenerator
    framework = "pytorch"


def output_dataloader(
    base_dataset: Any,
    distributions: Any,
    *,
    batch_size: int = 64,
    shuffle: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
    input_getter: Callable[[Any], Any] | None = None,
) -> training.DataLoader[Any]:
    """A ``DataLoader`` of (inputs, labels, distributions), or of (inputs, distributions) where samples carry no label.

    Args:
        base_dataset: A map-style dataset.
        distributions: A dict from index to row, a `Distributions`, or the path of a file of them.
        batch_size: Samples per batch.
        shuffle: Whether the order is another random one each time.
        num_workers: Processes that read.
        pin_memory: Whether batches lie in page-locked memory, from which they reach a GPU faster.
        input_getter: Takes a sample and returns its input.
    """
    dataset = FirstOrderDataset(base_dataset, distributions, input_getter)
    return training.loader(
        dataset, batch_size=batch_size, shuffle=shuffle, num_workers=num_workers, pin_memory=pin_memory
    )
