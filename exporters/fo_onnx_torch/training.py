"""torch's datasets and loaders, for reading in batches and for training with distributions."""

from __future__ import annotations

from typing import Any

from torch.utils.data import DataLoader, Dataset, IterableDataset

__all__ = ["DataLoader", "Dataset", "batches", "loader"]


def batches(data: Any, batch_size: int) -> Any:
    """A loader over a map-style dataset, in its order; anything else as it is."""
    if isinstance(data, Dataset) and not isinstance(data, IterableDataset):
        return DataLoader(data, batch_size=batch_size)
    return data


def loader(dataset: Any, **options: Any) -> DataLoader[Any]:
    """A ``DataLoader`` over a map-style dataset."""
    return DataLoader(dataset, **options)
