"""Rows read by position: stacking, bad rows, threads."""

from __future__ import annotations

import threading
import time
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fo_onnx.contracts.batch import BadRow
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.control.run_control import TimeUp, begin
from fo_onnx.errors import DataError
from fo_onnx.sources import open_source


class Rows:
    def __init__(self, n: int, row: Any = None, pause: Any = None) -> None:
        self.n = n
        self.row = row or (lambda i: np.full(2, i, np.float32))
        self.pause = pause
        self.read: list[int] = []

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, i: int) -> Any:
        if self.pause is not None:
            time.sleep(self.pause(i))
        self.read.append(i)
        return self.row(i)


def rows_of(source: Source, size: int = 4, start: int = 0) -> list[float]:
    return [float(r[0]) for b in source.batches(size, start) for r in b.inputs["0"]]


def test_a_dataset_that_raises_at_row_1000() -> None:
    def row(i: int) -> np.ndarray:
        if i == 1000:
            raise OSError("disk on fire")
        return np.zeros(2)

    batches = open_source(Rows(2000, row), DataOptions(ids=[f"s{i}" for i in range(2000)])).batches(64)
    rows = 0
    with pytest.raises(
        DataError, match=r"^row 1000 \(id 's1000'\): OSError: disk on fire. Mend the row, or go past such rows"
    ) as caught:
        for batch in batches:
            rows += len(batch)
    assert rows == 1000
    assert isinstance(caught.value.__cause__, OSError)


def test_a_start_does_not_read_what_is_before() -> None:
    rows = Rows(100)
    source = open_source(rows, DataOptions())
    assert rows_of(source, 8, 90) == list(range(90, 100))
    assert min(i for i in rows.read if i) == 90


class TestRagged:
    def ragged(self, i: int) -> np.ndarray:
        return np.zeros(3 if i == 5 else 2)

    def test_fail(self) -> None:
        batches = open_source(Rows(10, self.ragged), DataOptions()).batches(8)
        assert len(next(batches)) == 5
        with pytest.raises(
            DataError,
            match=r"^row 5 \(id 5\) has the shape \(3,\) where the others have \(2,\) \(ragged rows\)\. Make",
        ) as caught:
            next(batches)
        assert caught.value.position == 5

    def test_skip_leaves_the_odd_one_out(self) -> None:
        # The odd row is the first of its batch: it must not be the measure of the others.
        batches = list(open_source(Rows(10, self.ragged), DataOptions(on_error="skip")).batches(5))
        assert [len(b) for b in batches] == [5, 4]
        ((position, reason),) = [(r.position, r.reason) for r in batches[1].bad]
        assert position == 5
        assert reason.startswith("has the shape (3,) where the others have (2,) (ragged rows)")

    def test_peek_stops_before(self) -> None:
        assert len(open_source(Rows(10, self.ragged), DataOptions()).peek(8)) == 5

    def test_each_batch_may_have_its_shape(self) -> None:
        source = open_source(Rows(8, lambda i: np.zeros(2 if i < 4 else 3)), DataOptions())
        assert [b.inputs["0"].shape for b in source.batches(4)] == [(4, 2), (4, 3)]

    def test_names_that_differ(self) -> None:
        source = open_source(Rows(4, lambda i: {"a": np.zeros(2), "bc"[i // 2]: np.zeros(2)}), DataOptions())
        with pytest.raises(DataError, match=r"row 2 \(id 2\) has the inputs a, c where the others have a, b"):
            list(source.batches(4))

    def test_the_input_is_named_where_there_are_several(self) -> None:
        source = open_source(Rows(4, lambda i: {"a": np.zeros(2), "b": np.zeros(i + 1)}), DataOptions())
        with pytest.raises(DataError, match=r"has the shape \(2,\) in input 'b' where the others have \(1,\)"):
            list(source.batches(4))

    def test_tuples_that_differ(self) -> None:
        rows = [(np.zeros(2), 1), (np.zeros(2), np.zeros(2), 1), np.zeros(2)]
        with pytest.raises(DataError, match=r"row 1 \(id 1\): an element has 3 parts where the first had 2"):
            list(open_source(rows, DataOptions()).batches(4))
        with pytest.raises(DataError, match=r"row 1 \(id 1\): an element has no parts where the first had 2"):
            list(open_source(rows[::2], DataOptions()).batches(4))


class TestDtypes:
    def test_the_first_row_decides(self) -> None:
        rows = [np.zeros(2, np.float32), np.ones(2, np.float64), np.full(2, 2)]
        (batch,) = open_source(rows, DataOptions()).batches(4)
        assert batch.inputs["0"].dtype == np.float32
        assert batch.inputs["0"][:, 0].tolist() == [0, 1, 2]

    def test_it_holds_for_later_batches(self) -> None:
        rows = [np.zeros(2, np.float32), *[np.ones(2, np.float64)] * 5]
        assert {b.inputs["0"].dtype.name for b in open_source(rows, DataOptions()).batches(2)} == {"float32"}

    @pytest.mark.parametrize("later", [[0.5, 1], [300, 1]])
    def test_values_that_it_cannot_hold(self, later: list[float]) -> None:
        rows = [np.zeros(2, np.uint8), np.array(later)]
        with pytest.raises(
            DataError, match=r"row 1 \(id 1\) has the dtype .* where the first row has uint8, which cannot"
        ):
            list(open_source(rows, DataOptions()).batches(4))

    def test_a_batch_in_which_no_row_fits(self) -> None:
        rows = [np.zeros(2, np.uint8), np.array([300, 1]), np.ones(2, np.uint8)]
        batches = list(open_source(rows, DataOptions(on_error="skip")).batches(1))
        assert [(len(b), len(b.bad)) for b in batches] == [(1, 0), (0, 1), (1, 0)]
        assert batches[1].inputs["0"].shape == (0, 2)

    def test_lists_of_numbers(self) -> None:
        (batch,) = open_source([[1.5, 2.0], [3.0, 4.0]], DataOptions()).batches(4)
        assert batch.inputs["0"].dtype == np.float64
        (batch,) = open_source(([1, 2], [3, 4]), DataOptions()).batches(4)
        assert batch.inputs["0"].tolist() == [[1, 2], [3, 4]]


class TestBadRows:
    def test_what_is_recorded(self) -> None:
        def row(i: int) -> Any:
            return {"a": np.zeros(2)} if i != 1 else {"a": "text"}

        options = DataOptions(on_error="record", ids=["a", "b", "c"], signature=InputSignature(("a",)))
        (batch,) = open_source(Rows(3, row), options).batches(4)
        assert batch.ids.tolist() == ["a", "c"]
        assert batch.bad == (
            BadRow(
                1,
                "b",
                "input 'a' has the dtype <U4; numbers were expected. Leave it out with input_getter=, or convert it "
                "with transform=.",
            ),
        )

    def test_a_batch_of_bad_rows_only_keeps_shape_and_labels(self) -> None:
        def row(i: int) -> Any:
            if i in (2, 3):
                raise KeyError(i)
            return np.zeros(3), i

        batches = list(open_source(Rows(6, row), DataOptions(on_error="skip")).batches(2))
        assert [(b.start, len(b), len(b.bad)) for b in batches] == [(0, 2, 0), (2, 0, 2), (4, 2, 0)]
        assert batches[1].inputs["0"].shape == (0, 3)
        assert batches[1].labels is not None
        assert batches[1].labels.shape == (0,)
        assert batches[1].bad[0].reason == "KeyError: 2"

    def test_nothing_can_be_read(self) -> None:
        def row(i: int) -> Any:
            raise ValueError("no")

        source = open_source(Rows(5, row), DataOptions(on_error="skip"))
        assert len(source.peek(3)) == 0
        assert not source.has_labels
        assert [len(b.bad) for b in source.batches(2)] == [2, 2, 1]

    def test_an_interrupt_passes(self) -> None:
        def row(i: int) -> Any:
            raise KeyboardInterrupt

        for workers in (0, 2):
            source = open_source(Rows(5, row), DataOptions(on_error="skip", num_workers=workers))
            with pytest.raises(KeyboardInterrupt):
                list(source.batches(2))

    def test_stop_iteration_in_a_row_ends_nothing(self) -> None:
        def row(i: int) -> Any:
            if i == 1:
                raise StopIteration
            return np.zeros(2)

        (batch,) = open_source(Rows(4, row), DataOptions(on_error="skip")).batches(8)
        assert (len(batch), len(batch.bad)) == (3, 1)


class TestThreads:
    def test_order_is_kept(self) -> None:
        source = open_source(Rows(40, pause=lambda i: 0.004 * (i % 3 == 0)), DataOptions(num_workers=4))
        assert rows_of(source, 7) == list(range(40))

    def test_they_are_used_and_bounded(self) -> None:
        rows = Rows(400, pause=lambda i: 0.001)
        source = open_source(rows, DataOptions(num_workers=4))
        batches = source.batches(8)
        next(batches)
        time.sleep(0.1)
        assert 8 < len(rows.read) <= 8 + 8 + 2
        batches.close()  # type: ignore[attr-defined]
        assert not [t for t in threading.enumerate() if t.name.startswith("fo-onnx-rows")]

    def test_a_row_that_hangs_is_waited_for_no_longer_than_the_run_lasts(self) -> None:
        go = threading.Event()
        rows = Rows(20, row=lambda i: go.wait(10) if i == 5 else np.zeros(2))
        source = open_source(rows, DataOptions(num_workers=2))
        begun = time.perf_counter()
        with pytest.raises(TimeUp, match="while a row was being read"), begin(0.2):
            list(source.batches(4))
        go.set()
        assert time.perf_counter() - begun < 5

    def test_they_are_quicker(self) -> None:
        def seconds(workers: int) -> float:
            begin = time.perf_counter()
            list(open_source(Rows(60, pause=lambda i: 0.005), DataOptions(num_workers=workers)).batches(20))
            return time.perf_counter() - begin

        assert seconds(8) < 0.6 * seconds(0)


@given(
    st.integers(0, 30),
    st.sets(st.integers(0, 29)),
    st.integers(1, 12),
    st.integers(0, 30),
    st.sampled_from([0, 2]),
)
def test_every_row_is_accounted_for(n: int, bad: set[int], size: int, start: int, workers: int) -> None:
    def row(i: int) -> Any:
        if i in bad:
            raise ValueError(i)
        return np.full(2, i)

    options = DataOptions(on_error="skip", num_workers=workers)
    batches = list(open_source(Rows(n, row), options).batches(size, start))
    good = [i for b in batches for i in b.ids.tolist()]
    assert good == [i for i in range(start, n) if i not in bad]
    assert good == [int(r[0]) for b in batches if len(b) for r in b.inputs["0"]]
    assert sorted(good + [r.position for b in batches for r in b.bad]) == list(range(start, n))
    assert all(b.stop % size == 0 for b in batches[:-1])


def test_lists_of_batches_are_detected_by_the_models_ranks() -> None:
    batches = [(np.zeros((3, 2)), np.arange(3)), (np.ones((2, 2)), np.arange(2))]
    source = open_source(batches, DataOptions(signature=InputSignature(("x",), (), (2,))))
    assert [len(b) for b in source.batches(4)] == [4, 1]
    assert source.has_labels
