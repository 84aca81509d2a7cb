"""``fo-onnx check``: every byte of a result that can be checked."""

from __future__ import annotations

from pathlib import Path

import click

from .shared.options import PATH, common
from .shared.output import pairs, show


@click.command()
@click.argument("path", type=PATH)
@common
def command(path: Path) -> None:
    """Read a file of results or a run folder whole, and say what is wrong with it.

    Hashes, checksums, sums, ids, labels, counts and metrics are compared with what is recorded. The exit code is 1 if
    something is wrong. Files of older versions hold no digest: there, in JSON, npy and safetensors, a changed value that
    is still a distribution is not noticed.
    """
    from .. import store

    report = store.check(path)
    lines = [
        ("path", f"{path} ({report.format})"),
        ("rows", f"{report.rows} x {report.classes} classes"),
        ("bad rows", f"{report.bad_rows}, recorded as such" if report.bad_rows else None),
        ("complete", None if report.complete else "no: the run has not ended; generate --resume resumes it"),
        ("verdict", "sound" if report.ok else ["DAMAGED: " + report.problems[0], *report.problems[1:]]),
    ]
    show(report.as_dict(), pairs(lines), failed=not report.ok)
