"""A recorded parity, as it is printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..parity import ParityReport


def parity_line(recorded: Mapping[str, Any] | None) -> str | None:
    """A record in one line; ``None`` where there is none."""
    if recorded is None:
        return None
    report = ParityReport.from_dict(recorded)
    if report.unknown is not None:
        return f"unknown: {report.verdict()}"
    flips = f"{report.argmax_flips} argmax flip{'' if report.argmax_flips == 1 else 's'}"
    measured = f"max total variation {report.max_tv:.1e} over {report.rows} rows, {flips}"
    when = " (at export)" if recorded.get("measured") == "at export" else ""
    if not report.informative:
        return f"{measured}; {report.verdict()}{when}"
    return f"{report.outcome()}: {measured}{when}"
