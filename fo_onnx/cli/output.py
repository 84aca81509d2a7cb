"""How commands print: one JSON document, or aligned lines of plain text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ..printable import escaped, escaped_json

JSON = "fo_onnx.json"


def show(document: Mapping[str, Any], text: str) -> None:
    """Prints a command's result on standard output: the document with ``--json``, else the text."""
    if click.get_current_context().meta.get(JSON):
        print_json(document)
    else:
        click.echo(escaped(text, keep_newlines=True))


def print_json(document: Mapping[str, Any]) -> None:
    """Prints one JSON document that a terminal cannot obey; numbers that JSON lacks (NaN, infinities) become null."""
    click.echo(escaped_json(json.dumps(_plain(document), indent=2, ensure_ascii=False, allow_nan=False)))


def say(message: str) -> None:
    """Prints a message for people on standard error, in one line."""
    click.echo(f"fo-onnx: {escaped(message)}", err=True)


def pairs(lines: Iterable[tuple[str, Any]]) -> str:
    """Names and values in two columns; a list is a value of several lines, and pairs without a value are left out.

    Each line is escaped, so that a name from a file cannot forge another one.
    """
    known = [(name, value if isinstance(value, list) else [value]) for name, value in lines if value is not None]
    width = max((len(name) for name, _ in known), default=0) + 2
    below = "\n" + " " * width
    return "\n".join(f"{name:<{width}}{below.join(map(escaped, value))}" for name, value in known)


def columns(rows: Sequence[Sequence[str]], *, left: Sequence[int] = ()) -> str:
    """Rows of text in aligned columns, escaped; on the right but for those whose numbers are in `left`."""
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))] if rows else []
    return "\n".join(
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )  # fmt: skip


def size_text(size_bytes: float) -> str:
    """A number of bytes for people: ``35.7 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"


def time_text(seconds: float) -> str:
    """A duration for people: ``0.42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def rate_text(rows_per_s: float) -> str:
    """A rate for people, to three digits: ``51,200 rows/s``."""
    digits = max(2 - math.floor(math.log10(rows_per_s)), 0) if rows_per_s > 0 else 0
    rounded = float(f"{rows_per_s:.3g}")
    return f"{rounded:,.{digits}f} rows/s"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size


def class_text(classes: int | None, names: Sequence[str] | None, most: int = 10) -> str:
    """Number and names of classes: ``10: zero, one, …``."""
    if not names:
        return f"{classes}" if classes else "not known before a run"
    shown = ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")
    return f"{classes}: {shown}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, str | int | bool):
        return value
    return str(value)


def cut_text(batch_size: Any, sessions: Any, threads: Any) -> str:
    """How a run is cut and spread, in words."""
    spread = f"{sessions} session{'' if sessions == 1 else 's'} of {threads} thread{'' if threads == 1 else 's'}"
    return f"batch {batch_size}, {spread}"
