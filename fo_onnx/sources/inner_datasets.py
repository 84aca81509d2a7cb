"""The datasets that torch's own loaders, subsets and concatenations read, which say more of their elements than these do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any


def inner_datasets(data: Any) -> Iterator[Any]:
    """Yield the datasets whose elements torch's loader, subset or concatenation gives as they are; else the data themselves.

    Classes of users are not followed: what they do to elements and labels is not known.
    """
    is_torchs = type(data).__module__.startswith("torch.utils.data.")
    if is_torchs and type(data).__name__ in ("ConcatDataset", "ChainDataset"):
        for part in data.datasets:
            yield from inner_datasets(part)
    elif is_torchs and hasattr(data, "dataset"):
        yield from inner_datasets(data.dataset)
    else:
        yield data
