"""The generator of a framework by its name, or by the model."""

from __future__ import annotations

import importlib
from typing import Any

from .. import plugins
from ..options import choice
from .evaluating import DataGenerator

MODULES = {
    "pytorch": ("torch_first_order_generator", "PyTorchDataGenerator"),
    "tensorflow": ("tensorflow_generator", "TensorFlowDataGenerator"),
    "jax": ("jax_first_order_generator", "JAXDataGenerator"),
    "agnostic": ("first_order_datagenerator", "DataGenerator"),
}
_NAMES = {"torch": "pytorch", "keras": "tensorflow"}
"""The frameworks whose exporter or source has another name here."""


def create_data_generator(
    framework: str, model: Any, dataset: Any, batch_size: int = 32, device: str | None = None
) -> DataGenerator:
    """A generator for a model and its dataset.

    Args:
        framework: ``"pytorch"``, ``"tensorflow"``, ``"jax"``, ``"agnostic"``, or ``"auto"``, which tells by the model, and where
            that holds nothing of a framework by the dataset.
        model: The model.
        dataset: The samples.
        batch_size: Rows per run of the model.
        device: Where the model runs; ``None`` leaves it where it is.

    Raises:
        OptionError: An unknown name; lists those that are known. It is a `ValueError`.

    Example:
        >>> import numpy as np
        >>> def model(x):
        ...     return x @ np.eye(3, dtype=np.float32)[:2].T * 4
        >>> generator = create_data_generator("agnostic", model, np.eye(3, dtype=np.float32))
        >>> generator.generate()["class_distribution"]
        {'predicted': {0: 2, 1: 1}}
    """
    name = str(framework).lower()
    choice("framework", name, ("auto", *MODULES))
    module, kind = MODULES[told(model, dataset) if name == "auto" else name]
    made: DataGenerator = getattr(importlib.import_module(f".{module}", __package__), kind)(
        model, dataset, batch_size, device
    )
    return made


def told(model: Any, dataset: Any) -> str:
    """The framework of a model, else that of its dataset; ``"agnostic"`` where neither is of one."""
    found = plugins.exporter_for(model)
    name = None if found is None else found.name
    if name is None:
        name = next((f.name for f in plugins.source_factories() if f.accepts(dataset)), "agnostic")
    name = _NAMES.get(name, name)
    return name if name in MODULES else "agnostic"
