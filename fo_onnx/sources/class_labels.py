"""What integer labels count, where the data say so: Hugging Face's `ClassLabel`, torchvision's ``class_to_idx``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import zip_longest
from typing import Any

from ..contracts.options import DataOptions
from ..errors import DataError
from .inner_datasets import inner_datasets
from .label_finder import find_label_name


def find_class_names(data: Any, options: DataOptions) -> tuple[str, ...] | None:
    """Return what the labels count that the rows of a dataset carry; ``None`` if it does not say.

    Args:
        data: A `datasets.Dataset` or `IterableDataset`, a dataset of torchvision, or torch's loader, subset or concatenation of
            such; anything else says nothing. Parts of a concatenation that say nothing count as the others do.
        options: With ``labels=`` the rows' own labels do not count.

    Raises:
        DataError: The parts of a concatenation count other classes.
    """
    if options.labels is not None:
        return None
    orders = dict.fromkeys(names for d in inner_datasets(data) if (names := _names_of(d, options)) is not None)
    if len(orders) > 1:
        first, second, *_ = orders
        pairs = enumerate(zip_longest(first, second))
        number, (one, other) = next((i, pair) for i, pair in pairs if pair[0] != pair[1])
        raise DataError(
            f"the concatenated datasets count their labels differently: {number} is {_shown(one)} in one and {_shown(other)} in "
            "another. The same classes in the same order were expected. Give the labels of all rows with labels= (by name, if the "
            "model's classes have names), or leave them out with labels=False."
        )
    return next(iter(orders), None)


def names_of_feature(feature: Any) -> tuple[str, ...] | None:
    """Return the names that a `ClassLabel` of Hugging Face counts, or a list of them, as in batches; ``None`` for anything else."""
    feature = getattr(feature, "feature", feature)
    return tuple(feature.names) if type(feature).__name__ == "ClassLabel" and feature.names else None


def _names_of(dataset: Any, options: DataOptions) -> tuple[str, ...] | None:
    features, numbers = getattr(dataset, "features", None), getattr(dataset, "class_to_idx", None)
    # A target_transform makes other numbers of them.
    counts = isinstance(numbers, Mapping) and getattr(dataset, "target_transform", None) is None
    if counts and numbers and sorted(numbers.values()) == list(range(len(numbers))):
        return tuple(sorted(map(str, numbers), key=numbers.__getitem__))
    if not isinstance(features, Mapping):
        return None
    return names_of_feature(features.get(find_label_name(list(features), options)))


def _shown(name: str | None) -> str:
    return "no class" if name is None else repr(name)


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
