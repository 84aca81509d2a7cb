"""What integer labels count, where the data say so: Hugging Face's `ClassLabel`, torchvision's ``class_to_idx``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..contracts.options import DataOptions
from .label_finder import find_label_name


def find_class_names(data: Any, options: DataOptions) -> tuple[str, ...] | None:
    """Return what the labels count that the rows of a dataset carry; ``None`` if it does not say.

    Args:
        data: A `datasets.Dataset` or `IterableDataset`, a dataset of torchvision, or torch's loader or subset of one; anything else
            says nothing.
        options: With ``labels=`` the rows' own labels do not count.
    """
    while type(data).__module__.startswith("torch.utils.data.") and hasattr(data, "dataset"):
        data = data.dataset
    if options.labels is not None:
        return None
    features, numbers = getattr(data, "features", None), getattr(data, "class_to_idx", None)
    # A target_transform makes other numbers of them.
    counts = isinstance(numbers, Mapping) and getattr(data, "target_transform", None) is None
    if counts and numbers and sorted(numbers.values()) == list(range(len(numbers))):
        return tuple(sorted(map(str, numbers), key=numbers.__getitem__))
    if not isinstance(features, Mapping):
        return None
    feature: Any = features.get(find_label_name(list(features), options))
    return tuple(feature.names) if type(feature).__name__ == "ClassLabel" and feature.names else None


def read_class_names(metadata: Mapping[bytes, bytes] | None, column: str) -> tuple[str, ...] | None:
    """Return what a column of integers counts, by the metadata of an Arrow schema; ``None`` if they do not say.

    # source: datasets.Features.arrow_schema, which Parquet files of the library keep
    """
    text = (metadata or {}).get(b"huggingface")
    try:
        feature = None if text is None else json.loads(text)["info"]["features"][column]
    except (ValueError, LookupError, TypeError):
        return None  # another program's, of the same key
    if not isinstance(feature, dict) or feature.get("_type") != "ClassLabel":
        return None
    names = feature.get("names")
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        return None
    return tuple(names) if len(set(names)) == len(names) else None
