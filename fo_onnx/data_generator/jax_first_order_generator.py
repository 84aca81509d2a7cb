"""The guide's JAX module: functions and modules of JAX, JAX rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fo_onnx_jax.tensors import JaxTensors, collated, register_as_tree

from . import evaluating, generator, pairing
from .pairing import SimpleDataLoader
from .rows import RowDict

__all__ = ["FirstOrderDataGenerator", "FirstOrderDataset", "JAXDataGenerator", "JaxDataLoader", "output_dataloader"]


register_as_tree(RowDict)


class FirstOrderDataGenerator(generator.FirstOrderDataGenerator):
    """Gives JAX rows, for functions over JAX arrays and modules of flax, equinox and haiku; see the base class."""

    tensors = JaxTensors()
    framework = "jax"


class FirstOrderDataset(pairing.FirstOrderDataset):
    """A dataset whose items are (input, label, row), or (input, row) where samples carry no label; rows are JAX arrays."""

    tensors = JaxTensors()


class JaxDataLoader(SimpleDataLoader):
    """Batches of a dataset as JAX arrays, stacked along a first axis; tuples and dicts stay what they are."""

    def collate(self, items: list[Any]) -> Any:
        """A batch of items, as arrays."""
        return collated(items)


class JAXDataGenerator(evaluating.DataGenerator):
    """A JAX model and its dataset; `generate` says how the one does on the other; see the base class."""

    generator = FirstOrderDataGenerator
    framework = "jax"


def output_dataloader(
    base_dataset: Any,
    distributions: Any,
    *,
    batch_size: int = 64,
    shuffle: bool = False,
    num_workers: int = 0,
    pin_memory: bool = False,
    input_getter: Callable[[Any], Any] | None = None,
) -> JaxDataLoader:
    """Batches of (inputs, labels, distributions) as JAX arrays, or of (inputs, distributions) where there are no labels.

    Args:
        base_dataset: Anything with ``__len__`` and ``__getitem__``.
        distributions: A dict from index to row, a `Distributions`, or the path of a file of them.
        batch_size: Samples per batch.
        shuffle: Whether the order is another random one each time.
        num_workers: Without effect here; torch's loader has it.
        pin_memory: Likewise.
        input_getter: Takes a sample and returns its input.
    """
    # Rows become JAX arrays with their batch, which takes JAX as long as one of them.
    return JaxDataLoader(pairing.FirstOrderDataset(base_dataset, distributions, input_getter), batch_size, shuffle)
