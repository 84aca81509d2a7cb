"""Whether the rows of the data are those that are finished.

Digests of all rows, as the model gets them, are kept with an unfinished run. A resumed run compares them: all of those
that are finished where rows lie in memory, or are read in order and so are read anyway; else those of a sample. A finished
result keeps ids and labels, and these are compared.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Array, BadRow, Batch
from ..contracts.source import Source
from ..distributions import Distributions
from ..distributions.columns import Columns
from ..errors import DataError, ResumeError
from ..sources.fingerprint import row_digests
from ..store import InputDigests, RunFolder
from .labels import batch_positions, plain_id

SAMPLED_ROWS, COMPARED_ROWS = 32, 4096
Relabel = Callable[[Batch], "NDArray[np.int64] | None"]
"""Gives the labels of a batch as columns of the model."""


def require_same_rows(folder: RunFolder, source: Source, first: Batch, relabel: Relabel) -> None:
    """Compare the finished rows of a run with the source, as far as that is possible without reading all of it.

    Args:
        folder: The run.
        source: The rows.
        first: The first of them.
        relabel: Makes columns of the model of labels.

    Raises:
        ResumeError: Inputs, ids or labels of finished rows changed; names how many, and the first one by position.
    """
    changed: dict[str, list[int]] = {"the input or the label": [], "the id": [], "the label": []}
    finished = folder.finished_inputs(0, folder.position)
    if finished is not None:
        changed["the input or the label"] = _changed_inputs(source, first, finished)
    rows, begin = folder.finished_rows(), 0
    for shard in folder.journal.shards if rows is not None else ():
        assert rows is not None
        stored = rows.read(begin, begin + shard.rows, ("ids", "labels"))
        begin += shard.rows
        _compare_annotations(changed, source, shard.start, shard.stop, stored, relabel)
    if said := _name_changes(changed, sampled=None if source.in_memory else "the input or the label"):
        _refuse_changes(folder, said)


def find_changed_rows(result: Distributions, source: Source, first: Batch, relabel: Relabel) -> list[str]:
    """Return where ids and labels of a finished result are others in the source, in words.

    Labels that only reading a row tells are compared as inputs are: of all rows in memory, else of the first ones and a sample.
    """
    rows, reached = result.source, int(result.meta["data"].get("length") or result.source.length)
    changed: dict[str, list[int]] = {"the id": [], "the label": []}
    label_of_row = np.full(reached + 1, -1, dtype=np.int64)  # of rows after the last, there is none
    # Which rows are left out is not kept, so that they are looked up among all.
    step = COMPARED_ROWS if rows.length == reached else max(reached, 1)
    for start in range(0, reached, step):
        stop = min(start + step, reached)
        stored = rows.read(start, min(stop, rows.length), ("ids", "labels"))
        at = _compare_annotations(changed, source, start, stop, stored, relabel)
        if stored.labels is not None:
            label_of_row[start + at] = stored.labels
    is_carried = rows.layout.labels and reached and source.annotations(0, 1)[1] is None
    if is_carried and not changed["the id"]:
        for batch in _read_again(source, first, reached, np.flatnonzero(label_of_row >= 0)):
            columns = relabel(batch)
            # A row that cannot be read now has no label to compare.
            if columns is not None:
                positions = np.asarray(batch_positions(batch), dtype=np.int64)
                then = label_of_row[np.minimum(positions, reached)]
                changed["the label"] += positions[(then >= 0) & (columns != then)].tolist()
    return _name_changes(changed, sampled="the label" if is_carried and not source.in_memory else None)


def _compare_annotations(
    changed: dict[str, list[int]], source: Source, start: int, stop: int, stored: Columns, relabel: Relabel
) -> NDArray[np.int64]:
    """Add the rows from `start` to `stop` whose id, or label known without reading it, is another than is stored.

    Returns:
        Where each stored row is among them.
    """
    assert stored.ids is not None
    ids, labels = source.annotations(start, stop)
    at = _places(stored.ids, ids)
    if (at < 0).any():
        changed["the id"] += (start + np.flatnonzero(at < 0)).tolist()
    elif labels is not None and stored.labels is not None:
        columns = relabel(Batch(ids, {}, labels, start))
        assert columns is not None
        changed["the label"] += (start + at[columns[at] != stored.labels]).tolist()
    return at


def _changed_inputs(source: Source, first: Batch, finished: NDArray[np.uint64]) -> list[int]:
    """Return positions of finished rows that are others now: of all in memory, else of the first rows and of a sample.

    Of rows that are read in order the others are compared when they are read.
    """
    batches = _read_again(source, first, len(finished), np.flatnonzero(finished))
    return [p for batch in batches for p in _changed_rows(finished, batch.start, _digests(source, batch))]


def _read_again(source: Source, first: Batch, stop: int, readable: NDArray[np.int64]) -> Iterator[Batch]:
    """Yield rows before `stop`: all in memory, else the first ones and, unless they are read in order, a sample of `readable`."""
    if source.in_memory:
        try:
            for batch in source.batches(COMPARED_ROWS):
                yield batch
                if batch.stop >= stop:
                    return
        except DataError as err:
            # Rows that are not finished fail when they are run.
            if err.position is None or err.position < stop:
                raise
        return
    yield first
    if source.sequential:
        return
    # Others than the first rows cost a reading each.
    readable = readable[readable >= first.stop]
    spread = np.linspace(0, len(readable) - 1, min(SAMPLED_ROWS, len(readable))).round().astype(int)
    for position in readable[np.unique(spread)].tolist():
        yield _read_row(source, position)


def _changed_rows(finished: NDArray[np.uint64], start: int, digests: NDArray[np.uint64]) -> list[int]:
    """Return the positions from `start` on whose digests are others now.

    A row whose digest was 0 could not be read then: it has no distribution, and may have been mended.
    """
    then = finished[start : start + len(digests)]
    changed: list[int] = (start + np.flatnonzero((digests[: len(then)] != then) & (then != 0))).tolist()
    return changed


def _digests(source: Source, batch: Batch) -> NDArray[np.uint64]:
    """Return the digests of all positions that a batch accounts for; 0 for a row that could not be read."""
    digests = np.zeros(batch.stop - batch.start, dtype=np.uint64)
    if len(batch):
        columns = dict(batch.inputs)
        # Labels count if only reading the rows tells them.
        if batch.labels is not None and source.annotations(batch.start, batch.start)[1] is None:
            columns["its label"] = batch.labels
        digests[np.asarray(batch_positions(batch)) - batch.start] = row_digests(columns)
    return digests


def _read_row(source: Source, position: int) -> Batch:
    """Return one row as a batch, without that row if it cannot be read."""
    batches, reason = source.batches(1, position), "it is not there"
    try:
        if (batch := next(batches, None)) is not None:
            return batch
    except DataError as err:
        reason = str(err)
    finally:
        if isinstance(batches, Generator):
            batches.close()
    ids = source.annotations(position, position + 1)[0]
    return Batch(ids[:0], {}, None, position, (BadRow(position, plain_id(ids[0]), reason),))


def _places(stored: Array, ids: Array) -> NDArray[np.int64]:
    """Return where each stored id is among those of all positions of a shard; −1 for one that is not there.

    The positions of bad rows are not kept, so rows are looked up by their ids.
    """
    if len(stored) == len(ids):
        return np.where(stored == ids, np.arange(len(ids)), -1)
    place = {row_id: at for at, row_id in enumerate(ids.tolist())}
    return np.array([place.get(row_id, -1) for row_id in stored.tolist()], dtype=np.int64)


def _name_changes(changed: Mapping[str, Sequence[int]], *, sampled: str | None = None) -> list[str]:
    """Return what changed in how many rows, in words; of what was sampled it is said that there may be more."""
    return [
        f"{what} of {'at least ' if what == sampled else ''}{len(positions)} row{'' if len(positions) == 1 else 's'} changed, "
        f"first at row {min(positions)}"
        for what, positions in changed.items()
        if positions
    ]


def _refuse_changes(folder: RunFolder, changes: Sequence[str]) -> NoReturn:
    raise ResumeError(
        f"Resuming {folder.path}: rows that are finished are others now: {'; '.join(changes)}. Give the data it was begun "
        "with, or begin anew with overwrite=True."
    )


def digested_batches(source: Source, inputs: InputDigests, folder: RunFolder) -> Callable[[int, int], Iterator[Batch]]:
    """Return what reads batches and keeps their rows' digests; if rows are read in order, finished ones are compared, too.

    Args:
        source: The source.
        inputs: Takes the digests of rows that are not finished.
        folder: The run.

    Returns:
        What stands in place of ``source.batches``.
    """

    def batches(size: int, start: int) -> Iterator[Batch]:
        finished = folder.finished_inputs(0, start) if start and source.sequential else None
        position = start if finished is None else 0
        for batch in source.batches(size, position):
            position = batch.stop
            digests = _digests(source, batch)
            if finished is not None and batch.start < start:
                if said := _name_changes({"the input or the label": _changed_rows(finished, batch.start, digests)}):
                    _refuse_changes(folder, said)
                if batch.stop <= start:
                    continue
                batch, digests = cut_batch(batch, start), digests[start - batch.start :]
            inputs.put(batch.start, digests)
            yield batch
        if position < start:
            raise ResumeError(
                f"Resuming {folder.path}: {start} rows are finished, but the data end after {position} rows now. Give the "
                "data it was begun with, or begin anew with overwrite=True."
            )

    return batches


def cut_batch(batch: Batch, start: int) -> Batch:
    """Return the rest of a batch from position `start` on."""
    rest = np.asarray(batch_positions(batch), dtype=np.int64) >= start
    return Batch(
        batch.ids[rest],
        {name: array[rest] for name, array in batch.inputs.items()},
        None if batch.labels is None else batch.labels[rest],
        max(start, batch.start),
        tuple(b for b in batch.bad if b.position >= start),
    )
