"""The guide's PyTorch module: torch models, datasets and loaders, torch tensors in training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fo_onnx_torch import guide

from . import evaluating, generator, pairing

__all__ = ["FirstOrderDataGenerator", "FirstOrderDataset", "PyTorchDataGenerator", "output_dataloader"]


class FirstOrderDataGenerator(generator.FirstOrderDataGenerator):
    """For modules and callables over torch tensors; see the base class.

    With an `input_getter` a dataset is read through a ``DataLoader`` of `batch_size`, whose batches the function gets.
    """

    tensors = guide.TorchTensors()
    framework = "torch"
    pair_types = (tuple, list)

    def unwrap_loader(self, data: Any) -> Any:
        """Return a loader over a dataset if a function wants to see batches; else what the base class says."""
        data = super().unwrap_loader(data)
        return guide.batches(data, self.batch_size) if self.input_getter is not None else data


class FirstOrderDataset(pairing.FirstOrderDataset, guide.Dataset[Any]):
    """A torch dataset whose items are (input, label, row), or (input, row) if samples carry no label."""

    tensors = guide.TorchTensors()
    pair_types = (tuple, list)


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
    **options: Any,
) -> guide.DataLoader[Any]:
    """Return a ``DataLoader`` of (inputs, labels, distributions), or of (inputs, distributions) without labels.

    The arguments are those of `pairing.SimpleDataLoader.output_dataloader`, and all others of ``DataLoader``: `num_workers` processes read,
    and with `pin_memory` batches lie in page-locked memory, from which they reach a GPU faster.
    """
    dataset = FirstOrderDataset(base_dataset, distributions, input_getter)
    return guide.DataLoader(
        dataset, batch_size=batch_size, shuffle=shuffle, num_workers=num_workers, pin_memory=pin_memory, **options
    )
