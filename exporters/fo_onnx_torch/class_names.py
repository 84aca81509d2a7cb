"""The names of the classes that a model of transformers has in its config."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

COLUMNS_ARE_NO_LABELS = ("ForMultipleChoice", "ForNextSentencePrediction")
"""Ends of the classes of transformers that keep a checkpoint's ``id2label``, and whose columns are something else."""


def class_names_of(module: torch.nn.Module) -> tuple[str, ...] | None:
    """Return the names in the order of the columns that ``config.id2label`` has; ``None`` if there are none.

    Whether they are as many as the columns is seen once the model has run: a new head may have others. A module that
    holds a model of transformers, and its config, may order the columns in another way, and has no names.
    """
    classes = [c for c in type(module).__mro__ if c.__module__.partition(".")[0] == "transformers"]
    if not any(c.__name__ == "PreTrainedModel" for c in classes):
        return None
    if any(c.__name__.endswith(COLUMNS_ARE_NO_LABELS) for c in classes):
        return None
    return _read_names(getattr(module.config, "id2label", None))


def _read_names(id2label: Any) -> tuple[str, ...] | None:
    """Return the names of the columns 0 to k − 1; ``None`` if one is missing, or they are no names."""
    if not isinstance(id2label, Mapping) or not all(str(key).isascii() and str(key).isdecimal() for key in id2label):
        return None
    names = {int(key): name for key, name in id2label.items()}
    if sorted(names) != list(range(len(id2label))) or not all(isinstance(name, str) for name in names.values()):
        return None
    in_order = tuple(names[column] for column in sorted(names))
    # What transformers calls classes without names, and their numbers, as in scikit-learn's `classes_`.
    numbered = (tuple(f"{prefix}{column}" for column in sorted(names)) for prefix in ("LABEL_", ""))
    return in_order if in_order and len(set(in_order)) == len(in_order) and in_order not in numbered else None
