"""What a resumed run must have in common with the one begun: model, options, and the rows that are finished.

Digests of all rows, as the model gets them, are kept with the run. A resumed run compares them: all of those
that are finished where rows lie in memory, or are read in order and so are read anyway; else those of a sample. The model runs
the first finished rows again.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import takewhile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Batch
from ..contracts.options import RunOptions, positive_int
from ..contracts.parity_report import ParityReport
from ..contracts.runner import Runner
from ..contracts.source import Source
from ..errors import DataError, OptionError, ResumeError, StoreError, first_line
from ..runtime.opened import OpenedModel
from ..runtime.tuning import BatchPlan
from ..sources.fingerprint import row_digests
from ..store import InputDigests, RunFolder, differences
from .labels import batch_positions
from .rerun_rows import describe_other_rows

SAMPLED_ROWS, COMPARED_ROWS = 32, 4096

_WORDS = {
    "model.sha256": "the model (its weights or its code)",
    "model.output": "what the model's output means",
    "model.output_name": "which output of the model is meant",
    "model.output_transform": "output_transform",
    "model.temperature": "the temperature",
    "model.classes": "the number of classes",
    "model.class_names": "the names of the classes",
    "data.length": "the number of rows",
    "data.fingerprint": "the rows, their ids or their labels",
    "data.limit": "limit",
    "data.labels": "whether there are labels",
    "data.id_kind": "the kind of ids",
    "options.keep_logits": "keep_logits",
    "options.precision": "the precision",
}
_DIGESTS = ("model.sha256", "data.fingerprint")
Relabel = Callable[[Batch], "NDArray[np.int64] | None"]
"""Gives the labels of a batch as columns of the model."""


def changes_in_words(begun: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return where two identities differ: in words, with what was and what is."""
    said = []
    for key, (old, new) in differences(dict(begun), dict(now)).items():
        words = _WORDS.get(key)
        if words is None:
            section, _, name = key.partition(".")
            words = {"data": "the preprocessing", "versions": f"the version of {name}"}.get(section, key)
        # Two digests tell a reader nothing.
        said.append(words if key in _DIGESTS else f"{words} ({_short(old)} then, {_short(new)} now)")
    return said


def _short(value: Any) -> str:
    text = "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:60]}…"


def require_same_run(folder: RunFolder, now: Mapping[str, Any], source: Source, limit: int | None) -> None:
    """Raise unless model, options and the shape of the data are those of the run begun.

    A bad row that was mended changes the data's fingerprint, and a run may be given another end by ``limit=``; what is
    finished is compared row by row (`require_same_rows`).

    Raises:
        ResumeError: Names what changed; or the data do not say how many rows they have, and `limit` does not either.
    """
    begun: dict[str, Any] = {**folder.identity, "data": dict(folder.identity.get("data") or {})}
    current = {**now, "data": dict(now["data"])}
    other_end = begun["data"].get("limit") != current["data"]["limit"]
    for key in ("fingerprint", *(("limit", "length") if other_end else ())):
        begun["data"].pop(key, None)
        current["data"].pop(key, None)
    if changed := changes_in_words(begun, current):
        raise ResumeError(
            f"Resuming {folder.path}: the run was begun with something else: {'; '.join(changed)}. Give what it was begun "
            "with, or begin anew with overwrite=True."
        )
    if source.length is not None and source.length < folder.position:
        raise ResumeError(
            f"Resuming {folder.path}: {folder.position} rows are finished, but the data end after {source.length} rows now. "
            "Give the data it was begun with, or begin anew with overwrite=True."
        )
    if source.length is None and limit is None and folder.position:
        raise ResumeError(
            f"Resuming {folder.path}: the data do not say how many rows they have, so that it could not be checked whether the "
            "rows that are left are all there. Say how many rows the run has with limit=…, or begin anew with "
            "overwrite=True."
        )


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
        ids, labels = source.annotations(shard.start, shard.stop)
        at = _places(stored.ids, ids)
        if (at < 0).any():
            changed["the id"] += (shard.start + np.flatnonzero(at < 0)).tolist()
        elif labels is not None and stored.labels is not None:
            columns = relabel(Batch(ids, {}, labels, shard.start))
            assert columns is not None
            changed["the label"] += (shard.start + at[columns[at] != stored.labels]).tolist()
    _refuse_changes(folder, changed, sampled=None if source.in_memory else "the input or the label")


def require_same_model(folder: RunFolder, opened: OpenedModel, first: Batch) -> None:
    """Run the finished ones among the first rows again.

    Raises:
        ResumeError: They differ from what is stored, so that the model is another.
    """
    rows = folder.finished_rows()
    if rows is None:
        return
    finished = rows.read(0, min(len(first), rows.length), ("ids", "probs"))
    difference = describe_other_rows(opened, choose_resumed_runners(folder, opened), first, finished)
    if difference is not None:
        raise ResumeError(
            f"Resuming {folder.path}: the model gives other rows than those that are finished: {difference}. Give the model "
            "that the run was begun with, or begin anew with overwrite=True."
        )


def choose_resumed_runners(folder: RunFolder | None, opened: OpenedModel) -> Sequence[Runner]:
    """Return the runners of the rows that are left: the native one if it stepped in before, else those of `opened`."""
    if (
        folder is None
        or folder.switched_at is None
        or folder.position < folder.switched_at
        or opened.open_native is None
    ):
        return opened.runners
    return (opened.open_native(),)


def _changed_inputs(source: Source, first: Batch, finished: NDArray[np.uint64]) -> list[int]:
    """Return positions of finished rows that are others now: of all in memory, else of the first rows and of a sample.

    Of rows that are read in order the others are compared when they are read.
    """
    if source.in_memory:
        batches = takewhile(lambda batch: batch.start < len(finished), source.batches(COMPARED_ROWS))
        return [p for batch in batches for p in _changed_rows(finished, batch.start, _digests(source, batch))]
    changed = _changed_rows(finished, first.start, _digests(source, first))
    if source.sequential:
        return changed
    # Others than the first rows cost a reading each.
    readable = first.stop + np.flatnonzero(finished[first.stop :])
    spread = np.linspace(0, len(readable) - 1, min(SAMPLED_ROWS, len(readable))).round().astype(int)
    return changed + [p for p in readable[np.unique(spread)].tolist() if _digest_at(source, p) != finished[p]]


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


def _digest_at(source: Source, position: int) -> np.uint64:
    """Return the digest of one row; 0 if it cannot be read."""
    batches = source.batches(1, position)
    try:
        batch = next(batches, None)
    except DataError:
        return np.uint64(0)
    finally:
        if isinstance(batches, Generator):
            batches.close()
    return np.uint64(0) if batch is None else _digests(source, batch)[0]


def _places(stored: Any, ids: Any) -> NDArray[np.int64]:
    """Return where each stored id is among those of all positions of a shard; −1 for one that is not there.

    The positions of bad rows are not kept, so rows are looked up by their ids.
    """
    if len(stored) == len(ids):
        same: NDArray[np.bool_] = np.asarray(stored) == np.asarray(ids)
        return np.where(same, np.arange(len(ids)), -1)
    place = {row_id: at for at, row_id in enumerate(ids.tolist())}
    return np.array([place.get(row_id, -1) for row_id in stored.tolist()], dtype=np.int64)


def _refuse_changes(folder: RunFolder, changed: Mapping[str, Sequence[int]], *, sampled: str | None = None) -> None:
    """Raise a `ResumeError` if finished rows changed; of what was sampled it is said that there may be more."""
    said = [
        f"{what} of {'at least ' if what == sampled else ''}{len(positions)} row{'' if len(positions) == 1 else 's'} changed, "
        f"first at row {min(positions)}"
        for what, positions in changed.items()
        if positions
    ]
    if said:
        raise ResumeError(
            f"Resuming {folder.path}: rows that are finished are others now: {'; '.join(said)}. Give the data it was begun "
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
                _refuse_changes(folder, {"the input or the label": _changed_rows(finished, batch.start, digests)})
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


def recorded_run(folder: RunFolder, run: RunOptions) -> tuple[RunOptions, BatchPlan]:
    """Return how a run is resumed: with the runner and the plan that it was begun with.

    Raises:
        StoreError: Its ``run.json`` was edited or damaged.
    """
    check_settings(folder.settings, folder.path)
    settings = folder.settings
    if run.runner not in ("auto", settings["runner"]):
        raise ResumeError(
            f"Resuming {folder.path}: the run was begun with the {settings['runner']} runner, and runner={run.runner!r} is asked "
            "for now. Leave runner= out, or begin anew with overwrite=True."
        )
    plan = BatchPlan(settings["batch_size"], settings["sessions"], settings["threads"], "as recorded")
    return replace(run, runner=settings["runner"], batch_size=settings["batch_size"]), plan


def resumed_model(folder: RunFolder, opened: OpenedModel) -> OpenedModel:
    """Return the opened model with what the first part of the run recorded of it.

    Raises:
        ResumeError: It is on another device, where rows are not the same in every bit.
    """
    settings, device = folder.settings, opened.runners[0].device
    if device != settings["device"]:
        raise ResumeError(
            f"the run was begun on {settings['device']}, and would now go on on {device}, where rows are not the same in every "
            f"bit. Say device={settings['device']!r}, or begin anew with overwrite=True."
        )
    parity = None if settings["parity"] is None else ParityReport.from_dict(settings["parity"])
    return replace(opened, reason=settings["reason"], parity=opened.parity or parity)


def check_settings(settings: Mapping[str, Any], path: Path) -> None:
    """Check what a run folder says of how it was begun, as arguments are checked.

    Raises:
        StoreError: Something that no run writes, so that the folder was edited or damaged.
    """
    try:
        if settings["runner"] not in ("onnx", "native"):
            raise OptionError(f"runner={settings['runner']!r} is not a choice")
        for name, most in (("batch_size", 2**31), ("sessions", 1024), ("threads", 4096)):
            positive_int(name, settings[name])
            if settings[name] > most:
                raise OptionError(f"{name}={settings[name]} is more than any run has ({most})")
        if not isinstance(settings["device"], str) or not isinstance(settings["reason"], str | None):
            raise OptionError("device and reason are no texts")
        if settings["parity"] is not None:
            ParityReport.from_dict(settings["parity"])
    except (OptionError, DataError, KeyError, TypeError, ValueError, AttributeError) as err:
        raise StoreError(
            f"Resuming {path}: its run.json is not as this version writes it ({first_line(err)}). It was edited or "
            "damaged; begin anew with overwrite=True."
        ) from err
