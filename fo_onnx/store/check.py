"""A thorough look at a file or run folder: every byte that can be checked is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..errors import StoreError, StoreNotFoundError, reading
from ..metrics import MetricsAccumulator
from ..rows import Array, Rows, chunks, duplicated, not_distributions, some, strictly_increasing
from .digest import RowDigest, digest_problems
from .formats import target_format
from .journal import Journal
from .schema import Layout, same_json
from .shards import DATA, ERRORS, MANIFEST, load_json, manifest_shards, shard_problem
from .shards import read as read_folder

_SHOWN_IDS = 10


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


@dataclass
class _Faulty:
    """The ids of rows at fault: the first ones, and how many there are."""

    first: list[int | str] = field(default_factory=list)
    count: int = 0

    def add(self, ids: Array) -> None:
        self.first += ids[: max(0, _SHOWN_IDS - self.count)].tolist()
        self.count += len(ids)

    def __str__(self) -> str:
        return some(self.first) + (f" … ({self.count} in all)" if self.count > _SHOWN_IDS else "")


def check(path: str | Path) -> CheckReport:
    """Reads everything and compares it with what is said about it.

    Digests of rows, of the record beside them and of shards, checksums of pages and of zip members, meta's schema, sums
    and signs of rows, duplicate ids, labels, counts against journal, manifest and meta, and the metrics in meta against
    those of the rows.

    Raises:
        StoreNotFoundError: Nothing is there.
        StoreError: The suffix is unknown.
    """
    path = Path(path)
    with reading(path, StoreError, "Checking"):
        is_there, is_folder = path.exists(), path.is_dir()
    if not is_there:
        raise StoreNotFoundError(f"Checking {path}: nothing is there.")
    if is_folder:
        report = CheckReport(path, "run folder", complete=(path / MANIFEST).exists())
        _look(report, lambda: _check_folder(report))
        return report
    form = target_format(path)
    if form is None:
        raise StoreError(f"Checking {path}: a file without a suffix; its format cannot be told.")
    report = CheckReport(path, form.suffix)
    _look(report, lambda: report.problems.extend(form.find_damage(path)))
    _look(report, lambda: _check_rows(report, *form.open(path)))
    return report


def _look(report: CheckReport, step: Callable[[], None]) -> None:
    try:
        with reading(report.path, StoreError, "Checking"):
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
    named = {s.file for s in journal.shards} | {s.file for s in shards}
    if unnamed := sorted(p.name for p in (folder / DATA).glob("*.parquet") if p.name not in named):
        report.problems.append(
            f"{DATA} holds shards that the journal does not name: {some(unnamed)}. The journal lost its end, or the run "
            "was killed between the two; resume=True runs their rows again"
        )
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
    digest = RowDigest(Layout.of(rows))
    ids: list[Array] = []
    increasing, last = True, None
    wrong, no_class = _Faulty(), _Faulty()
    for part in chunks(rows):
        digest.update(part)
        taken, probs = cast(Array, part.ids), cast(Array, part.probs)
        wrong.add(taken[not_distributions(probs)])
        labels = part.labels
        if labels is not None and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < rows.classes:
            no_class.add(taken[(labels < 0) | (labels >= rows.classes)])
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
    if wrong.count:
        report.problems.append(f"rows that are no distribution (finite, not negative, sum 1 within 0.001): ids {wrong}")
    if no_class.count:
        report.problems.append(f"labels that are no class (0 … {rows.classes - 1}): ids {no_class}")
    _check_data_length(report, meta)
    if not increasing and (doubled := duplicated(np.concatenate(ids))):
        report.problems.append(f"duplicate ids: {some(doubled)}")
    computed = gathered.result()
    # A format that keeps no labels still keeps the metrics that were computed with them.
    recorded = {k: v for k, v in meta.get("metrics", {}).items() if rows.has_labels or k in computed}
    if recorded and not wrong.count and not no_class.count and not same_json(recorded, computed, 1e-9):
        report.problems.append(
            "the metrics in meta are not those of the rows: rows or meta changed after they were written"
        )
    report.problems += digest_problems(meta, digest.result())


def _check_data_length(report: CheckReport, meta: dict[str, Any]) -> None:
    length = (meta.get("data") or {}).get("length")
    if report.complete and length is not None and length != report.rows + report.bad_rows:
        report.problems.append(
            f"meta says {length} rows of data, but {report.rows} were written and {report.bad_rows} came to nothing"
        )
