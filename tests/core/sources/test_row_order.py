"""Streams of Hugging Face whose order is a random one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fo_onnx.contracts.options import DataOptions
from fo_onnx.errors import DataError
from fo_onnx.sources.opening import open_source

hf = pytest.importorskip("datasets")

COUNT = 12


def stream() -> Any:
    return hf.Dataset.from_dict({"x": list(range(COUNT))}).to_iterable_dataset(num_shards=3)


def interleaved(seed: int | None = None) -> Any:
    return hf.interleave_datasets([stream(), stream()], probabilities=[0.5, 0.5], seed=seed)


def rows_of(data: Any, **options: Any) -> tuple[list[Any], list[Any]]:
    (batch,) = open_source(data, DataOptions(**options)).batches(100)
    return batch.ids.tolist(), next(iter(batch.inputs.values())).tolist()


UNSEEDED: dict[str, Callable[[], Any]] = {
    "shuffle": lambda: stream().shuffle(),
    "a small buffer": lambda: stream().shuffle(buffer_size=4),
    "a generator": lambda: stream().shuffle(generator=np.random.default_rng()),
    "mapped": lambda: stream().shuffle().map(lambda row: row),
    "filtered and cut": lambda: stream().shuffle().filter(lambda row: row["x"] > 3).take(5),
    "one of several": lambda: hf.concatenate_datasets([stream(), stream().shuffle()]),
    "a column": lambda: stream().shuffle()["x"],
    "interleave_datasets": interleaved,
}


@pytest.mark.parametrize("kind", UNSEEDED)
def test_a_random_order_without_a_seed(kind: str) -> None:
    name = "interleave_datasets" if kind == "interleave_datasets" else "shuffle"
    pattern = rf"random order \({name} without a seed\).* make it with seed= .* ids of the rows .* with ids="
    with pytest.raises(DataError, match=pattern):
        open_source(UNSEEDED[kind](), DataOptions())


@pytest.mark.parametrize(
    "make",
    [
        stream,
        lambda: stream().shuffle(seed=3),
        lambda: stream().shuffle(seed=2**63),
        lambda: stream().shuffle(seed=3, buffer_size=4).map(lambda row: row),
        lambda: stream().shuffle(generator=np.random.default_rng([3, 4])),
        lambda: stream().shuffle(generator=np.random.default_rng(np.int64(3))),
        lambda: interleaved(seed=3),
        lambda: hf.interleave_datasets([stream(), stream()]),
    ],
)
def test_an_order_that_is_the_same_each_time(make: Callable[[], Any]) -> None:
    # Read twice, and made anew, as another process does.
    data = make()
    source = open_source(data, DataOptions())
    rows = [next(iter(next(source.batches(100)).inputs.values())).tolist() for _ in range(2)]
    assert rows[0] == rows[1] == rows_of(make())[1]


def test_a_random_order_with_ids() -> None:
    data = stream().shuffle()
    ids = [f"row {row['x']}" for row in data]
    assert rows_of(data, ids=ids) == (ids, [int(i.split()[1]) for i in ids])
