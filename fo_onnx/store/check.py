"""A thorough look at a file or run folder: every byte that can be checked is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import StoreError, StoreNotFoundError
from ..metrics import MetricsAccumulator
from ..rows import Array, Rows, chunks, duplicated, not_distributions, some, strictly_increasing
from .formats import target_format
from .journal import Journal
from .schema import same_json
from .shards import ERRORS, MANIFEST, load_json, manifest_shards, shard_problem
from .shards import read as read_folder


@dataclass
class CheckReport:
    """What was found.

    Attributes:
        path: The file or folder.
        format: The suffix, or ``"run folder"``.
        complete: Whether the run that wrote it ended.
        rows: Rows that were read.
        classes: Number of classes.
        bad_rows: Rows that meta says came to nothing.
        problems: One text each; empty where all is well.
    """

    path: Path
    format: str
    complete: bool = True
    rows: int = 0
    classes: int = 0
    bad_rows: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """JSON types."""
        return {**self.__dict__, "path": str(self.path), "ok": self.ok}


def check(path: str | Path) -> CheckReport:
    """Reads everything and compares it with what is said about it.

    Digests of shards, checksums of pages and of zip members, meta's schema, sums and signs of rows, duplicate ids,
    labels, counts against journal, manifest and meta, and the metrics in meta against those of the rows.

    Raises:
        StoreNotFoundError: Nothing is there.
        StoreError: The suffix is unknown.
    """
    path = Path(path)
    if not path.exists():
        raise StoreNotFoundError(f"Checking {path}: nothing is there.")
    if path.is_dir():
        report = CheckReport(path, "run folder", complete=(path / MANIFEST).exists())
        _look(report, lambda: _check_folder(report))
        return report
    form = target_format(path)
    if form is None:
        raise StoreError(f"Checking {path}: a file without a suffix; its format cannot be told.")
    report = CheckReport(path, form.suffix)
    report.problems += form.damage(path)

    def read() -> None:
        rows, meta = form.read(path)
        _check_rows(report, rows, meta)

    _look(report, read)
    return report


def _look(report: CheckReport, step: Any) -> None:
    try:
        step()
    except StoreError as err:
        report.problems.append(str(err))


def _check_folder(report: CheckReport) -> None:
    folder = report.path
    journal = Journal(folder)
    shards = journal.shards
    if report.complete:
        listed = manifest_shards(load_json(folder / MANIFEST), folder / MANIFEST)
        if listed != shards:
            report.problems.append(
                f"the manifest lists {len(listed)} shards, the journal {len(shards)}, and they are not the same"
            )
        shards = listed
    for shard in shards:
        if problem := shard_problem(folder, shard, hashing=True):
            report.problems.append(problem)
    if (journal.layout or {}).get("record_errors"):
        lines = (folder / ERRORS).read_bytes().splitlines() if (folder / ERRORS).exists() else []
        bad = sum(s.bad_rows for s in shards)
        if len(lines) < bad or (report.complete and len(lines) != bad):
            report.problems.append(f"{ERRORS} has {len(lines)} lines, the journal counts {bad} bad rows")
    rows, meta = read_folder(folder)
    _check_rows(report, rows, meta)


def _check_rows(report: CheckReport, rows: Rows, meta: dict[str, Any]) -> None:
    report.classes = rows.classes
    counts = meta.get("rows") or {}
    report.bad_rows = (counts.get("skipped") or 0) + (counts.get("quarantined") or 0)
    report.complete = report.complete and meta.get("complete", True) is True
    gathered = MetricsAccumulator(rows.classes)
    ids: list[Array] = []
    increasing, last = True, None
    wrong: list[Any] = []
    no_class: list[Any] = []
    for part in chunks(rows):
        taken, probs = cast(Array, part.ids), cast(Array, part.probs)
        wrong += taken[not_distributions(probs)].tolist()
        labels = part.labels
        if labels is not None and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < rows.classes:
            no_class += taken[(labels < 0) | (labels >= rows.classes)].tolist()
            labels = None
        increasing = increasing and strictly_increasing(taken) and (last is None or taken[0] > last)
        last = taken[-1]
        ids.append(taken)
        if increasing and rows.id_kind == "int":
            # Increasing ids are all different: what came before need not be kept.
            ids = [np.array([int(ids[0][0])]), taken] if len(ids) > 2 else ids
        report.rows += len(taken)
        with np.errstate(invalid="ignore", divide="ignore"):
            gathered.update(probs, labels)
    if wrong:
        report.problems.append(
            f"rows that are no distribution (finite, not negative, sum 1 within 0.001): ids {some(wrong)}"
        )
    if no_class:
        report.problems.append(f"labels that are no class (0 … {rows.classes - 1}): ids {some(no_class)}")
    _check_data_length(report, meta)
    if not increasing and (doubled := duplicated(np.concatenate(ids))):
        report.problems.append(f"duplicate ids: {some(doubled)}")
    said = meta.get("metrics")
    if said is not None and not wrong and not no_class and not same_json(said, gathered.result(), 1e-9):
        report.problems.append(
            "the metrics in meta are not those of the rows: rows or meta changed after they were written"
        )


def _check_data_length(report: CheckReport, meta: dict[str, Any]) -> None:
    length = (meta.get("data") or {}).get("length")
    if report.complete and length is not None and length != report.rows + report.bad_rows:
        report.problems.append(
            f"meta says {length} rows of data, but {report.rows} were written and {report.bad_rows} came to nothing"
        )
