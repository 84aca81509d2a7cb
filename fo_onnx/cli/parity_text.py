"""A recorded parity, as it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..parity import ParityReport


def report_of(recorded: Mapping[str, Any]) -> ParityReport:
    """The report that a record was made from."""
    fields = {k: v for k, v in recorded.items() if k in ParityReport.__dataclass_fields__}
    return ParityReport(**{**fields, "batch_sizes": tuple(fields.get("batch_sizes", ()))})


def parity_line(recorded: Mapping[str, Any] | None) -> str | None:
    """A record in one line; ``None`` where there is none."""
    if recorded is None:
        return None
    report = report_of(recorded)
    flips = f"{report.argmax_flips} argmax flip{'' if report.argmax_flips == 1 else 's'}"
    measured = f"max total variation {report.max_tv:.1e} over {report.rows} rows, {flips}"
    if not report.informative:
        return f"{measured}; {report.verdict()}"
    return f"{'passed' if report.passed else 'FAILED'}: {measured}"
