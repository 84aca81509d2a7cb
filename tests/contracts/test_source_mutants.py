"""The checks of sources can fail: each is run against sources that are wrong on purpose."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from source_checks import check_annotations, check_digests, check_fingerprint, check_peek, check_whole
from source_kinds import KINDS, Data, Room

from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.source import Source


class Mutant:
    """A source that is wrong on purpose."""

    def __init__(self, source: Source) -> None:
        self.source = source

    def __getattr__(self, name: str) -> Any:
        return getattr(self.source, name)


class ShiftsRows(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        for b in self.source.batches(size, start):
            yield dataclasses.replace(b, inputs={k: np.roll(a, 1, axis=0) for k, a in b.inputs.items()})


class ShiftsLabels(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        for b in self.source.batches(size, start):
            yield dataclasses.replace(b, labels=np.roll(b.labels, 1))


class RepeatsABatch(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        for i, b in enumerate(self.source.batches(size, start)):
            yield b
            if i == 1:
                yield b


class RepeatsContents(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        first = None
        for b in self.source.batches(size, start):
            first = first or b
            yield dataclasses.replace(b, inputs={k: a[: len(b)] for k, a in first.inputs.items()})


class LosesTheRest(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return (b for b in self.source.batches(size, start) if len(b) == size)


class CutsFromStart(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return (next(self.source.batches(begin + size, begin)) for begin in range(start, 23, size))


class IgnoresStart(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return self.source.batches(size)


class NumbersFromStart(Mutant):
    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return (dataclasses.replace(b, ids=b.ids - start) for b in self.source.batches(size, start))


class EatsWhatItShows(Mutant):
    eaten = 0

    def peek(self, n: int) -> Batch:
        self.eaten += n
        return self.source.peek(n)

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        return self.source.batches(size, max(start, self.eaten))


class KnowsOneFingerprint(Mutant):
    def fingerprint(self) -> str:
        return "the same"


class FingerprintsAtRandom(Mutant):
    def fingerprint(self) -> str:
        return str(np.random.default_rng().integers(1 << 60))


class AnnotatesTheNextRow(Mutant):
    def annotations(self, start: int, stop: int) -> Any:
        return self.source.annotations(start + 1, stop + 1)


class AnnotatesOtherLabels(Mutant):
    def annotations(self, start: int, stop: int) -> Any:
        ids, labels = self.source.annotations(start, stop)
        return ids, np.roll(labels, 1)


class PadsItsBatches(Mutant):
    """Rows that depend on the batch that they are in."""

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        for b in self.source.batches(size, start):
            yield dataclasses.replace(b, inputs={k: a + np.float32(len(b)) for k, a in b.inputs.items()})


@pytest.fixture
def pair(tmp_path: Path) -> Room:
    return Room(KINDS["tuple of arrays"], tmp_path)


@pytest.mark.parametrize("mutant", [None, ShiftsRows, ShiftsLabels, RepeatsABatch, RepeatsContents, LosesTheRest])
def test_the_check_of_all_rows_can_fail(mutant: type[Mutant] | None, pair: Room) -> None:
    data = Data.of(23)
    source = pair.open(data)
    if mutant is None:
        check_whole(source, pair, data, 4)
        return
    with pytest.raises(AssertionError):
        check_whole(mutant(source), pair, data, 4)


@pytest.mark.parametrize("mutant", [CutsFromStart, IgnoresStart, NumbersFromStart])
def test_the_check_of_a_later_start_can_fail(mutant: type[Mutant], pair: Room) -> None:
    data = Data.of(23)
    with pytest.raises(AssertionError):
        check_whole(mutant(pair.open(data)), pair, data, 4, 5)


def test_the_check_of_peeking_can_fail(pair: Room) -> None:
    data = Data.of(23)
    with pytest.raises(AssertionError):
        check_peek(EatsWhatItShows(pair.open(data)), pair, data)


@pytest.mark.parametrize("mutant", [KnowsOneFingerprint, FingerprintsAtRandom])
def test_the_check_of_fingerprints_can_fail(mutant: type[Mutant], pair: Room) -> None:
    with pytest.raises(AssertionError):
        check_fingerprint(lambda d: mutant(pair.open(d)), Data.of(23))


@pytest.mark.parametrize("mutant", [AnnotatesTheNextRow, AnnotatesOtherLabels])
def test_the_check_of_annotations_can_fail(mutant: type[Mutant], pair: Room) -> None:
    data = Data.of(23)
    with pytest.raises(AssertionError):
        check_annotations(mutant(pair.open(data)), pair, data)


def test_the_check_of_digests_can_fail(pair: Room) -> None:
    with pytest.raises(AssertionError):
        check_digests(lambda d: PadsItsBatches(pair.open(d)), Data.of(23))
