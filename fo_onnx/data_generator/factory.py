"""The generator of a framework by its name, or by the model."""

from __future__ import annotations

import importlib
from typing import Any

from ..contracts.options import choice
from ..models import plugins
from .evaluating import DataGenerator

MODULES = {
    "pytorch": ("torch_first_order_generator", "PyTorchDataGenerator"),
    "tensorflow": ("tensorflow_generator", "TensorFlowDataGenerator"),
    "jax": ("jax_first_order_generator", "JAXDataGenerator"),
    "agnostic": ("first_order_datagenerator", "DataGenerator"),
}
_PLUGIN_NAMES = {"torch": "pytorch", "keras": "tensorflow"}
"""Plugins that have another name here."""


def create_data_generator(
    framework: str, model: Any, dataset: Any, batch_size: int = 32, device: str | None = None
) -> DataGenerator:
    """Return a generator for a model and its dataset; see `DataGenerator` for the other arguments.

    `framework` is ``"pytorch"``, ``"tensorflow"``, ``"jax"``, ``"agnostic"``, or ``"auto"``, which goes by the model, and if that
    holds nothing of a framework by the dataset.

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
    module, class_name = MODULES[detect_framework(model, dataset) if name == "auto" else name]
    kind: type[DataGenerator] = getattr(importlib.import_module(f".{module}", __package__), class_name)
    return kind(model, dataset, batch_size, device)


def detect_framework(model: Any, dataset: Any) -> str:
    """Return the framework of a model, else that of its dataset; ``"agnostic"`` if neither is of one."""
    plugin = plugins.exporter_for(model) or next((f for f in plugins.source_factories() if f.accepts(dataset)), None)
    name = "agnostic" if plugin is None else _PLUGIN_NAMES.get(plugin.name, plugin.name)
    return name if name in MODULES else "agnostic"
