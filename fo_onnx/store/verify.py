"""A thorough look at a file or run folder: every byte that can be checked is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from ..distributions import Distributions
from ..distributions.columns import Array, Rows, invalid_labels, read_chunks
from ..distributions.ids import is_increasing, shorten_list
from ..distributions.metrics import MetricsAccumulator
from ..distributions.probabilities import invalid_rows
from ..errors import StoreError, StoreNotFoundError, StoreWriteError, reading
from .digest import RowDigest, find_changes
from .files import read_marker
from .formats.registry import target_format
from .run.journal import Journal, list_shard_files
from .run.shard_reader import DATA, MANIFEST, RUN, find_problems, list_manifest_shards, read_json, read_run_folder
from .schema import same_json

_SHOWN_IDS = 10


@dataclass
class CheckReport:
    """The result of `check`.

    Attributes:
        path: The file or folder.
        format: The suffix, or ``"run folder"``.
        complete: Whether the run that wrote it ended.
        rows: Rows that were read.
        classes: Number of classes.
        bad_rows: Bad rows, as meta counts them.
        problems: One text each; empty if all is well.
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
        """Return whether nothing is wrong."""
        return not self.problems

    def as_dict(self) -> dict[str, Any]:
        """Return JSON types."""
        return {**self.__dict__, "path": str(self.path), "ok": self.ok}


@dataclass
class _RowsAtFault:
    """The ids of rows at fault: the first ones, and how many there are."""

    first: list[int | str] = field(default_factory=list)
    count: int = 0

    def add(self, ids: Array) -> None:
        self.first += ids[: max(0, _SHOWN_IDS - self.count)].tolist()
        self.count += len(ids)

    def __str__(self) -> str:
        return shorten_list(self.first) + (f" … ({self.count} in all)" if self.count > _SHOWN_IDS else "")


def check(path: str | Path) -> CheckReport:
    """Read everything, and compare it with what is said about it.

    Digests of rows, of their record and of shards, checksums of pages and of zip members, meta's schema, sums and signs of
    rows, duplicate ids, labels, counts against journal, manifest and meta, and the metrics in meta against those of the
    rows.

    Raises:
        StoreNotFoundError: Nothing is there.
        StoreError: The suffix is unknown.
        StoreWriteError: Ids that do not increase, of a large result, find no room in the temporary folder.
    """
    path = Path(path)
    with reading(path, StoreError, "Checking"):
        is_there, is_folder = path.exists(), path.is_dir()
    if not is_there:
        raise StoreNotFoundError(f"Checking {path}: nothing is there.")
    if is_folder:
        if not any((path / name).exists() for name in (RUN, MANIFEST)):
            raise StoreError(f"Checking {path}: a folder without {RUN} and {MANIFEST}, so no run folder of fo-onnx.")
        report = CheckReport(path, "run folder", complete=(path / MANIFEST).exists())
        if read_marker(path) is None:
            # Whether the run has ended does not matter: nothing could continue it.
            report.complete = True
            report.problems.append(
                f"its {RUN} or {MANIFEST} is not as fo-onnx writes it: damaged, or of another program. The run cannot be resumed"
            )
        _report_errors(report, lambda: _check_folder(report))
        return report
    form = target_format(path)
    if form is None:
        raise StoreError(f"Checking {path}: a file without a suffix; its format cannot be determined.")
    # Damage is a line of the report, not an error: what could be read is compared all the same.
    report = CheckReport(path, form.suffix)
    _report_errors(report, lambda: _check_rows(report, *form.open(path)))
    return report


def _report_errors(report: CheckReport, step: Callable[[], object]) -> None:
    try:
        with reading(report.path, StoreError, "Checking"):
            step()
    except StoreWriteError:
        raise  # which says nothing about the file
    except StoreError as err:
        report.problems.append(str(err))


def _check_folder(report: CheckReport) -> None:
    folder = report.path
    journal = Journal(folder)
    if journal.damage is not None:
        raise journal.damage
    shards = journal.shards
    if report.complete:
        listed = list_manifest_shards(read_json(folder / MANIFEST), folder / MANIFEST)
        if listed != shards:
            report.problems.append(
                f"the manifest lists {len(listed)} shards, the journal {len(shards)}, and they are not the same"
            )
        shards = listed
    # Each shard against its digest, and no shard that nothing speaks of.
    report.problems += [problem for _, problem in find_problems(folder, shards)]
    names = {s.file for s in journal.shards} | {s.file for s in shards}
    if unnamed := sorted(p.name for p in (folder / DATA).glob("*.parquet") if p.name not in names):
        # What the journal does not account for is never removed.
        foreign = sorted(set(unnamed) - list_shard_files(folder))
        cure = f"Move {shorten_list(foreign)} elsewhere; then" if foreign else "Then"
        report.problems.append(
            f"{DATA} holds shards that the journal does not name: {shorten_list(unnamed)}. The journal lost its end, or the "
            f"run was killed between the two. {cure} resume=True runs their rows again"
        )
    _check_rows(report, *read_run_folder(folder))


def _check_rows(report: CheckReport, rows: Rows, meta: dict[str, Any]) -> None:
    counts = meta.get("rows") or {}
    layout = rows.layout
    report.classes = layout.classes
    report.bad_rows = (counts.get("skipped") or 0) + (counts.get("quarantined") or 0)
    report.complete = report.complete and meta.get("complete", True) is True
    # One pass over the rows, for everything that is compared below; only ids that do not increase are read once more.
    metrics = MetricsAccumulator(layout.classes)
    digest = RowDigest(layout)
    increasing, last = True, None
    no_distribution, no_class = _RowsAtFault(), _RowsAtFault()
    for part in read_chunks(rows):
        digest.update(part)
        part_ids, probs, labels = cast(Array, part.ids), cast(Array, part.probs), part.labels
        no_distribution.add(part_ids[invalid_rows(probs)])
        if labels is not None and len(wrong := invalid_labels(labels, layout.classes)):
            no_class.add(part_ids[wrong])
        increasing = increasing and is_increasing(part_ids) and (last is None or bool(part_ids[0] > last))
        last = part_ids[-1]
        report.rows += len(part_ids)
        # Metrics of rows at fault say nothing, and take the longest.
        if not no_distribution.count and not no_class.count:
            metrics.update(probs, labels)
    if no_distribution.count:
        report.problems.append(
            f"rows that are no distribution (finite, not negative, sum 1 within 0.001): ids {no_distribution}"
        )
    if no_class.count:
        report.problems.append(f"labels that are no class (0 … {layout.classes - 1}): ids {no_class}")
    length = (meta.get("data") or {}).get("length")
    if report.complete and length is not None and length != report.rows + report.bad_rows:
        report.problems.append(
            f"meta says {length} rows of data, but {report.rows} were written and {report.bad_rows} were bad"
        )
    if not increasing:
        _report_errors(report, lambda: Distributions.from_rows(rows, meta).ids)
    computed = metrics.result()
    # A format that keeps no labels still keeps the metrics that were computed with them.
    recorded = {k: v for k, v in meta.get("metrics", {}).items() if layout.labels or k in computed}
    if recorded and not no_distribution.count and not no_class.count and not same_json(recorded, computed, 1e-9):
        report.problems.append(
            "the metrics in meta are not those of the rows: rows or meta changed after they were written"
        )
    report.problems += find_changes(meta, digest.result())
