"""Columns of categories: numpy has no such type, so that the categories travel with the values' dtype.

Estimators that read the dtype `category` of a data frame (LightGBM, XGBoost) compute with the numbers of the categories, and
must get the same ones that the frame had.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..contracts.batch import Array

_KEY = "fo_onnx.categories"


class Categories(NamedTuple):
    """What a column's values are categories of: all `values`, in order, and whether the order means something."""

    values: tuple[Any, ...]
    ordered: bool


def mark_categories(column: Array, values: Sequence[Any], *, ordered: bool) -> Array:
    """Return a copy of a column (n,) whose dtype names its categories. Slices, selections and copies of it do so, too."""
    dtype = np.dtype(column.dtype.str, metadata={_KEY: Categories(tuple(values), ordered)})
    marked: Array = column.astype(dtype)
    return marked


def categories_of(column: Array) -> Categories | None:
    """Return the categories that `mark_categories` gave a column; ``None`` for a column of plain values."""
    metadata = column.dtype.metadata
    return None if metadata is None else metadata.get(_KEY)
