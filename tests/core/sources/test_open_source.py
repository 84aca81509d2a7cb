"""Which source fits which data."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.errors import DataError
from fo_onnx.sources import open_source
from fo_onnx.sources.arrays import ArraySource
from fo_onnx.sources.iterables import IterableSource
from fo_onnx.sources.sequences import RowSource

X = np.zeros((4, 2))


class OldSequence:
    def __len__(self) -> int:
        return 3

    def __getitem__(self, i: int) -> Any:
        return X[i]


class OnlyIter:
    def __iter__(self) -> Iterator[Any]:
        return iter(X)


class NoLength(OldSequence):
    def __len__(self) -> int:
        raise NotImplementedError


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (X, ArraySource),
        ((X, np.arange(4)), ArraySource),
        ((X, [0, 1, 2, 3]), ArraySource),
        ({"a": [1.0, 2.0]}, ArraySource),
        (((X, X), np.arange(4)), ArraySource),
        ([X[0], X[1]], RowSource),
        ([(X[0], 1), (X[1], 0)], RowSource),
        (((X[0], 1), (X[1], 0)), RowSource),
        ([[1, 2], [3, 4]], RowSource),
        (([1, 2], [3, 4]), RowSource),
        ([{"a": X[0]}], RowSource),
        ([], RowSource),
        ((), RowSource),
        (range(3), RowSource),
        (OldSequence(), RowSource),
        (OnlyIter(), IterableSource),
        (NoLength(), IterableSource),
        (iter(X), IterableSource),
        (zip(X, range(4), strict=True), IterableSource),
        ({"a": 1}.values(), IterableSource),
    ],
)
def test_kinds(data: Any, kind: type) -> None:
    source = open_source(data, DataOptions())
    assert type(source) is kind
    list(source.batches(2))


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (3, "a builtins.int"),
        (None, "a builtins.NoneType"),
        (b"abc", "a builtins.bytes"),
        ({}, "an empty dict"),
        ({1, 2}, "a builtins.set"),
        (int, "a builtins.type"),
        (object(), "a builtins.object"),
    ],
)
def test_nothing_fits(data: Any, name: str) -> None:
    with pytest.raises(
        DataError, match=rf"rows cannot be read from {name}\. What can: numpy arrays .*, and what plugins take"
    ):
        open_source(data, DataOptions())


class Plugin:
    name = "test"

    def __init__(self, takes: Any) -> None:
        self.takes = takes

    def accepts(self, data: Any) -> bool:
        return data is self.takes

    def open(self, data: Any, options: DataOptions) -> Source:
        return open_source(X + 7, options)


def test_plugins_are_asked_first() -> None:
    data = [X[0]]
    assert open_source(data, DataOptions(), [Plugin(None), Plugin(data)]).length == 4
    assert open_source(data, DataOptions(), [Plugin(None)]).length == 1


def test_what_is_imported() -> None:
    program = (
        "import sys; import fo_onnx.sources\n"
        "print([m for m in ('torch', 'pyarrow', 'PIL', 'onnx', 'pandas', 'orjson') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
