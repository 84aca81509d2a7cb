"""The guide's JAX module: functions and modules of JAX, JAX arrays in training."""

from __future__ import annotations

from typing import Any

from fo_onnx_jax.guide import JaxTensors, collate

from . import evaluating, generator, pairing

__all__ = ["FirstOrderDataGenerator", "FirstOrderDataset", "JAXDataGenerator", "JaxDataLoader", "output_dataloader"]


class FirstOrderDataGenerator(generator.FirstOrderDataGenerator):
    """For functions over JAX arrays, and modules of flax, equinox and haiku; see the base class."""

    tensors = JaxTensors()
    framework = "jax"


class FirstOrderDataset(pairing.FirstOrderDataset):
    """A dataset whose items are (input, label, row), or (input, row) if samples carry no label; rows are JAX arrays."""

    tensors = JaxTensors()


class JaxDataLoader(pairing.SimpleDataLoader):
    """Batches of a dataset as JAX arrays, stacked along a first axis; tuples and dicts stay what they are."""

    def collate(self, items: list[Any]) -> Any:
        """Return a batch of items, as arrays."""
        return collate(items)


class JAXDataGenerator(evaluating.DataGenerator):
    """A JAX model and its dataset; `generate` says how the one does on the other; see the base class."""

    generator = FirstOrderDataGenerator
    framework = "jax"


# Rows become JAX arrays with their batch, which takes JAX as long as one of them.
output_dataloader = JaxDataLoader.output_dataloader
