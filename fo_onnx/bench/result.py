"""What a benchmark found, and its file: JSON with the version of its form."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ..errors import FoOnnxError, reading
from ..guards.limits import check_regular
from .turns import Ratio, Verdict, ratio_of

SCHEMA = 1
_DOING = "reading the results of a benchmark in"
ENGINE = "fo-onnx"
"""The name of this package's own path."""
SAME_KEYS = ("processor", "cores", "device", "precision", "model", "row")
"""Entries of the environment in which two results must agree to be compared."""


class BenchError(FoOnnxError):
    """A benchmark that cannot be run, or a file of results that cannot be read or compared."""


@dataclass(frozen=True)
class PathResult:
    """What was measured of one path.

    Attributes:
        name: The path: ``"torch eager"``, ``"fo-onnx"``.
        is_native: Whether it is the framework's own.
        seconds: Of each turn, over all rows; empty if the path failed.
        batch_size: The best of the sizes that were tried; ``None`` if the path chooses itself.
        by_batch: Rows per second by batch size, of the short runs that chose it.
        open_s: Seconds to prepare it: to open, to compile, to run for the first time.
        first_row_s: Seconds of a batch of one row.
        max_tv: Largest total variation of its rows from those of the reference.
        peak_bytes: Peak memory of a process that runs it alone; ``None`` if that was not measured.
        details: How it ran, if it decides on that itself: for fo-onnx the record of its runner.
        error: Why it failed; ``None`` if it did not.
    """

    name: str
    is_native: bool = False
    seconds: tuple[float, ...] = ()
    batch_size: int | None = None
    by_batch: Mapping[str, float] = field(default_factory=dict)
    open_s: float | None = None
    first_row_s: float | None = None
    max_tv: float | None = None
    peak_bytes: int | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None

    def rows_per_s(self, rows: int) -> float | None:
        """Return the median throughput; ``None`` if it failed."""
        return rows / statistics.median(self.seconds) if self.seconds else None


@dataclass(frozen=True)
class BenchResult:
    """What a benchmark found.

    Attributes:
        rows: Rows of each turn.
        paths: The paths, native ones first.
        null: The ratio of the last path that ran over itself: how far from 1 a ratio lies by chance.
        export_s: Seconds to export and compare the model; ``None`` for a file.
        flops_per_row: Floating-point operations; ``None`` if there was no graph to count them in.
        bytes_per_row: Bytes that have to be moved: the row, and its share of the weights that a batch reads.
        limit_rows_per_s: Rows per second that the machine's best rates allow for these.
        environment: Machine, versions, precision, commit.
        not_tried: Paths that were left out, with the reason.
    """

    rows: int
    paths: tuple[PathResult, ...]
    null: Ratio | None
    export_s: float | None
    flops_per_row: float | None
    bytes_per_row: float | None
    limit_rows_per_s: float | None
    environment: Mapping[str, Any]
    not_tried: Mapping[str, str] = field(default_factory=dict)

    def path(self, name: str) -> PathResult:
        """Return a path by its name. Raises `KeyError`."""
        for path in self.paths:
            if path.name == name:
                return path
        raise KeyError(name)

    @property
    def timed(self) -> tuple[PathResult, ...]:
        """Return the paths that ran."""
        return tuple(p for p in self.paths if p.seconds)

    def ratio(self, name: str, other: str) -> Ratio:
        """Return the throughput of one path over that of another."""
        return ratio_of(self.path(name).seconds, self.path(other).seconds)

    def verdict(self, name: str, other: str) -> Verdict:
        """Return whether one path is faster than another, slower, or the same within the spread of the null ratio."""
        null = self.null if self.null is not None else Ratio(1.0, 1.0, 1.0)
        return self.ratio(name, other).verdict(null)

    @property
    def fastest(self) -> PathResult:
        """Return the path with the highest median throughput."""
        return min(self.timed, key=lambda p: statistics.median(p.seconds))

    def rows_until_paid(self) -> float | None:
        """Return from how many rows on fo-onnx, with its export, is sooner done than the best native path; ``None`` if never.

        Both begin with the trained model: what is compiled, opened and run for the first time counts on both sides.
        """
        native = [p for p in self.timed if p.is_native]
        own = next((p for p in self.timed if p.name == ENGINE), None)
        if own is None or not native or self.export_s is None:
            return None
        best = min(native, key=lambda p: statistics.median(p.seconds))
        gain_s = (statistics.median(best.seconds) - statistics.median(own.seconds)) / self.rows
        more_s = self.export_s + (own.open_s or 0.0) - (best.open_s or 0.0)
        return max(more_s, 0.0) / gain_s if gain_s > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Return the result as JSON types."""
        return {"schema": SCHEMA, **asdict(self), "environment": dict(self.environment)}

    def to_json(self) -> str:
        """Return the result as the text of a file, which `read_result` reads."""
        return json.dumps(self.to_dict(), indent=1) + "\n"


def read_result(path: Path) -> BenchResult:
    """Read a file that `BenchResult.to_json` gave.

    Raises:
        BenchError: There is no such file, or it is no result of a benchmark of this version.
    """
    if not path.exists():
        raise BenchError(f"{_DOING} {path}: there is no such file.")
    with reading(path, BenchError, _DOING):
        check_regular(path, BenchError, _DOING)
        values = json.loads(path.read_bytes())
        if not isinstance(values, dict) or values.get("schema") != SCHEMA:
            raise BenchError(
                f"{path} holds no results of a benchmark in the form {SCHEMA}; fo-onnx bench … -o result.json writes them."
            )
        null = values["null"]
        return BenchResult(
            rows=int(values["rows"]),
            paths=tuple(PathResult(**{**p, "seconds": tuple(p["seconds"])}) for p in values["paths"]),
            null=None if null is None else Ratio.from_dict(null),
            export_s=values["export_s"],
            flops_per_row=values["flops_per_row"],
            bytes_per_row=values["bytes_per_row"],
            limit_rows_per_s=values["limit_rows_per_s"],
            environment=values["environment"],
            not_tried=values["not_tried"],
        )
