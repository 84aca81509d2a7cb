"""The order in which Hugging Face's streams give their rows, where it is a random one."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from ..contracts.options import DataOptions
from ..errors import DataError
from .inner_datasets import inner_datasets

_SEEDS_END = 2**64
"""Numpy draws an integer of 128 bits where no seed is given; what programs give as a seed is smaller."""


def require_fixed_order(data: Any, options: DataOptions) -> None:
    """Raise a `DataError` for a stream of Hugging Face, also within torch's loader, that is shuffled without a seed.

    With a seed it gives the same order each time, in every process. Without one the order is that of one object: whoever gives
    ``ids=`` has read it.
    """
    if options.ids is not None:
        return
    for dataset in inner_datasets(data):
        for step in _steps(dataset):
            generator = getattr(step, "generator", None)
            if generator is not None and not _is_seeded(generator):
                name = "interleave_datasets" if hasattr(step, "probabilities") else "shuffle"
                raise DataError(
                    f"the dataset gives its rows in a random order ({name} without a seed), another one in each process, so that "
                    f"results could not be matched with samples. Leave that out, or make it with seed= ({name}(…, seed=0)); or give "
                    "the ids of the rows in this dataset's order with ids=."
                )


def _steps(dataset: Any) -> Iterator[Any]:
    """Yield the steps that a stream of Hugging Face is made of, the last first; of anything else none.

    They are private: of a stream's order nothing public says anything.
    # source: datasets 5.2, iterable_dataset.py; the names are those of datasets 2 to 5
    """
    while type(dataset).__name__ == "IterableColumn":
        dataset = dataset.source
    pending = [getattr(dataset, "_ex_iterable", None)]
    while pending:
        step = pending.pop()
        if step is not None:
            yield step
            pending += [getattr(step, "ex_iterable", None), *getattr(step, "ex_iterables", ())]


def _is_seeded(generator: Any) -> bool:
    """Return whether a random generator of numpy was made with a seed."""
    seeds = getattr(getattr(generator, "bit_generator", None), "seed_seq", None)
    entropy = getattr(seeds, "entropy", None)
    return entropy is not None and not (isinstance(entropy, int) and entropy >= _SEEDS_END)
