"""How an exported model compares with the original: the report, as it is recorded and shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from ..guards.printable import escaped

INFORMATIVE_SPREAD = 100
NEAR_UNIFORM = 0.25
"""Total variation: the biases of a freshly made layer, up to 1/√n for n ≥ 4 inputs, alone take rows this far from uniform."""


@dataclass(frozen=True)
class ParityReport:
    """How an exported model compares with the original.

    Distances are total variations, in [0, 1], in float64.

    Attributes:
        reference: What it was compared with.
        rows: Number of rows.
        batch_sizes: The batch sizes at which both were run.
        max_tv: The largest distance of a row.
        p99_tv: The 99th percentile.
        mean_tv: The mean.
        max_kl: The largest Kullback-Leibler divergence of a row, in nats.
        argmax_flips: Rows whose most probable class differs.
        tolerance: The largest `max_tv` that counts as the same.
        row_spread: The mean distance of the reference's rows from their mean.
        deterministic: Whether the original gives the same rows twice.
        original_gap: Where the original is of half precision: the largest distance between it and its float32 copy,
            which is the reference; else ``None``.
        problem: What kept the comparison from being made, if anything did.
        uniform_distance: The mean distance of the reference's rows from the uniform distribution; ``None`` in records of
            earlier versions, whose `row_spread` was a median over pairs of rows.
        noise: The largest distance of a row of the original from itself in a batch of another size. The tolerance is at least
            three times it.
        row_dependence: What a row of the original depends on besides its input: on chance, or on its batch; ``None`` if on
            nothing.
        unknown: Why this recorded comparison says nothing of what is run, for example since the file changed after it;
            ``None`` where it does.
    """

    reference: str
    rows: int
    batch_sizes: tuple[int, ...]
    max_tv: float
    p99_tv: float
    mean_tv: float
    max_kl: float
    argmax_flips: int
    tolerance: float
    row_spread: float
    deterministic: bool
    original_gap: float | None = None
    problem: str | None = None
    uniform_distance: float | None = None
    unknown: str | None = None
    noise: float = 0.0
    row_dependence: str | None = None

    @property
    def agrees(self) -> bool:
        """Return whether the two give the same rows, within the tolerance, in batches of the same rows; false if unknown."""
        return self.unknown is None and self.deterministic and self.problem is None and self.max_tv <= self.tolerance

    @property
    def passed(self) -> bool:
        """Return whether the two agree, and each row is its own: it depends on its input alone."""
        return self.agrees and self.row_dependence is None

    @property
    def informative(self) -> bool:
        """Return whether agreement proves anything; it proves little where a file that ignores its input would agree as well.

        That is so where rows lie close to their mean (below 100 × tolerance) and close to uniform too (below 0.25), where
        biases alone may have put them: rows that are confident in one class owe it to their input, so that agreement on
        them counts.
        """
        if self.uniform_distance is None:
            return True  # not known
        return self.row_spread >= INFORMATIVE_SPREAD * self.tolerance or self.uniform_distance >= NEAR_UNIFORM

    def outcome(self) -> str:
        """Return the outcome in one word."""
        return "unknown" if self.unknown is not None else "passed" if self.passed else "FAILED"

    def verdict(self) -> str:
        """Return the outcome in one sentence."""
        if self.unknown is not None:
            return self.unknown
        if (problem := self.row_dependence or self.problem) is not None:
            return problem
        if not self.passed:
            return (
                f"rows differ by a total variation of up to {self.max_tv:.2e} from {self.reference}, above the tolerance of "
                f"{self.tolerance:.0e}{self._tolerance_reason()} ({self.argmax_flips} of {self.rows} rows change their most probable class)"
            )
        if not self.informative:
            return (
                f"the rows agree, but they lie only {self.row_spread:.1e} from their mean and {self.uniform_distance:.1e} from "
                "uniform: a near-uniform model agrees with anything, so that this proves little"
            )
        return f"the rows agree with {self.reference} within {self.max_tv:.1e}"

    def to_dict(self) -> dict[str, Any]:
        """Return the report as JSON types, for the record."""
        passed = None if self.unknown is not None else self.passed
        return {**asdict(self), "batch_sizes": list(self.batch_sizes), "passed": passed}

    @classmethod
    def of_record(cls, record: Mapping[str, Any] | None) -> ParityReport | None:
        """Return the report that a result's record holds; ``None`` if nothing was compared. Raises as `from_dict` does."""
        return None if record is None or record.get("reference") is None else cls.from_dict(record)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ParityReport:
        """Return the report that a record of `to_dict` holds; what else is in the record is passed over.

        Raises:
            ValueError: A value is of another type than a report has.
            TypeError: One is missing.
        """
        known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
        known["batch_sizes"] = tuple(data.get("batch_sizes", ()))
        kinds: dict[str, Any] = {"reference": str, "deterministic": bool, "batch_sizes": tuple}
        kinds |= dict.fromkeys(("problem", "unknown", "row_dependence"), str | None)
        kinds |= dict.fromkeys(("original_gap", "uniform_distance"), float | int | None)
        for name, value in known.items():
            kind = kinds.get(name, float | int)
            if not isinstance(value, kind):
                raise ValueError(f"a recorded comparison has {name}={value!r:.100}; {kind} was expected")
        return cls(**known)

    def table(self) -> str:
        """Return the report as lines of text."""
        lines = [
            ("reference", self.reference),
            ("rows", f"{self.rows}, at batch sizes {', '.join(map(str, self.batch_sizes))}"),
            ("max total variation", f"{self.max_tv:.2e}  (tolerance {self.tolerance:.0e}{self._tolerance_reason()})"),
            ("99th percentile", f"{self.p99_tv:.2e}"),
            ("mean", f"{self.mean_tv:.2e}"),
            ("max KL divergence", f"{self.max_kl:.2e} nats"),
            ("argmax flips", str(self.argmax_flips)),
            ("spread of the rows", self._spread_text()),
            ("deterministic", "yes" if self.deterministic else "no"),
        ]
        if self.original_gap is not None:
            lines.append(("gap to half precision", f"{self.original_gap:.2e}"))
        lines.append(("verdict", f"{self.outcome()}: {self.verdict()}"))
        return "\n".join(f"{name:<22}{escaped(value)}" for name, value in lines)

    def _tolerance_reason(self) -> str:
        is_noise = self.noise > 0 and self.tolerance <= 3.001 * self.noise
        return f", three times the original's own noise of {self.noise:.1e} between batch sizes" if is_noise else ""

    def _spread_text(self) -> str:
        if self.uniform_distance is None:
            return f"{self.row_spread:.3f}"
        return f"{self.row_spread:.3f} from their mean, {self.uniform_distance:.3f} from uniform"


def describe_missing(reason: str) -> dict[str, Any]:
    """Return the record of a run in which nothing was compared: ``passed`` and all figures are ``None``, ``unknown`` says why."""
    names = (*ParityReport.__dataclass_fields__, "passed", "measured")
    return {**dict.fromkeys(names), "batch_sizes": [], "unknown": reason}
