"""Torch tensors, datasets and loaders as sources; whatever model their rows feed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from fo_onnx.contracts.batch import Array
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.errors import DataError
from fo_onnx.sources.arrays import open_arrays
from fo_onnx.sources.iterables import IterableSource, find_length
from fo_onnx.sources.nested import as_array, leaves
from fo_onnx.sources.opening import open_builtin, open_sequence

if TYPE_CHECKING:
    from torch.utils.data import DataLoader


class TorchSources:
    """Opens tensors (also in tuples, lists and dicts), datasets, loaders, and iterators, which may give tensors."""

    name = "torch"

    def accepts(self, data: Any) -> bool:
        """Return whether `data` is, or may hold, what is torch's. Never imports torch."""
        torch = sys.modules.get("torch")
        if torch is None or not hasattr(torch, "utils"):
            return False
        from torch.utils.data import DataLoader, Dataset

        if isinstance(data, torch.Tensor | Dataset | DataLoader):
            return True
        if isinstance(data, list | tuple | dict):
            # The first sample of a list is enough: it may be long.
            sample = data[:1] if isinstance(data, list) else data
            return any(isinstance(leaf, torch.Tensor) for leaf in leaves(sample))
        return hasattr(data, "__next__")

    def open(self, data: Any, options: DataOptions) -> Source:
        """Return the rows of `data`.

        Raises:
            DataError: A loader that shuffles or would lose rows; a dataset without a length; nested, masked or
                quantised tensors.
        """
        import torch
        from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

        from .tensors import require_plain_rows

        if isinstance(data, DataLoader):
            return _open_loader(data, options)
        columns = data.tensors if isinstance(data, TensorDataset) else data
        if isinstance(columns, torch.Tensor | tuple | dict):
            # Before anything is asked of them: a nested tensor has not even a shape.
            for leaf in leaves(columns):
                if isinstance(leaf, torch.Tensor):
                    require_plain_rows(leaf)
        if isinstance(data, TensorDataset):
            return open_arrays(tuple(data.tensors), options, to_array)
        if isinstance(data, IterableDataset):
            # A DataLoader makes batches of them.
            return IterableSource(data, options, to_array, length=find_length(data), gives_samples=True)
        if isinstance(data, Dataset):
            if find_length(data) is None:
                raise DataError(
                    f"the dataset {type(data).__qualname__} has no length: __len__ and __getitem__ were expected, or "
                    "__iter__ in an IterableDataset."
                )
            return open_sequence(data, options, to_array)
        return open_builtin(data, options, to_array)


def to_array(leaf: Any) -> Array:
    """Return a tensor, or anything else that numpy understands, as an array."""
    import torch

    from .tensors import rows_to_numpy

    return rows_to_numpy(leaf) if isinstance(leaf, torch.Tensor) else as_array(leaf)


def _open_loader(loader: DataLoader[Any], options: DataOptions) -> Source:
    from torch.utils.data import BatchSampler, IterableDataset, SequentialSampler

    # With a batch_sampler= the loader's own sampler says nothing: it is the one that is not used.
    batches = loader.batch_sampler
    sampler = batches.sampler if type(batches) is BatchSampler else loader.sampler if batches is None else batches
    in_order = isinstance(loader.dataset, IterableDataset) or type(sampler) is SequentialSampler
    # Loaders whose rows could not be matched with results.
    if not in_order and options.ids is None:
        raise DataError(
            f"the loader takes its rows in an order that is not known beforehand ({type(sampler).__qualname__}), so that "
            "results could not be matched with samples. Make it with shuffle=False and without a sampler, or give the "
            "ids of the rows in the loader's order with ids=."
        )
    if isinstance(loader.dataset, IterableDataset) and loader.num_workers > 1 and options.ids is None:
        raise DataError(
            f"the loader reads an IterableDataset with {loader.num_workers} workers, each of which goes through it by itself: "
            "rows come doubled or interleaved, and results could not be matched with samples. Make it with num_workers=1, or "
            "give the ids of the rows in the loader's order with ids=."
        )
    if loader.num_workers > 0 and not getattr(loader, "in_order", True):
        raise DataError(
            "the loader was made with in_order=False: its batches come in the order in which workers finish, so that "
            "results could not be matched with samples. Make it with in_order=True."
        )
    # The length of a sampler of batches counts batches.
    length = find_length(loader.dataset) if in_order else None if sampler is batches else find_length(sampler)
    _refuse_lost_rows(batches, length)
    return IterableSource(loader, options, to_array, batched=None if batches is None else True, length=length)


def _refuse_lost_rows(batches: Any, length: int | None) -> None:
    size = getattr(batches, "batch_size", None)
    if size is None or not getattr(batches, "drop_last", False) or (length is not None and length % size == 0):
        return
    loss = "may lose rows" if length is None else f"would lose the last {length % size} of {length} rows"
    raise DataError(f"the loader was made with drop_last=True and {loss}. Make it with drop_last=False.")
