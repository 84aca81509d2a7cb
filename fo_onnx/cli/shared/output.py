"""How commands print: one JSON document, or aligned lines of plain text."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import click

from ...guards.printable import escaped, escaped_json

FAILED = 1
COMMAND, DEBUG, JSON = "fo_onnx.command", "fo_onnx.debug", "fo_onnx.json"
"""Keys of the context's meta: the command, and whether its options ``--debug`` and ``--json`` were given."""


def show(document: Mapping[str, Any], text: str, *, failed: bool = False) -> None:
    """Print a command's result on standard output: the document with ``--json``, else the text. Exit with 1 if it `failed`."""
    ctx = click.get_current_context()
    if ctx.meta.get(JSON):
        print_json(document)
    else:
        click.echo(escaped(text, keep_newlines=True))
    if failed:
        ctx.exit(FAILED)


def print_json(document: Mapping[str, Any]) -> None:
    """Print one JSON document that a terminal cannot obey; numbers that JSON lacks (NaN, infinities) become null."""
    plain = json.loads(json.dumps(document, default=str), parse_constant=lambda name: None)
    click.echo(escaped_json(json.dumps(plain, indent=2, ensure_ascii=False)))


def say(message: str) -> None:
    """Print a message for people on standard error, in one line."""
    click.echo(f"fo-onnx: {escaped(message)}", err=True)


def pairs(lines: Iterable[tuple[str, Any]]) -> str:
    """Return names and values in two columns; a list is a value of several lines, and pairs without a value are left out.

    Each line is escaped, so that a name from a file cannot forge another one.
    """
    known = [(name, value if isinstance(value, list) else [value]) for name, value in lines if value is not None]
    width = max((len(name) for name, _ in known), default=0) + 2
    indent = "\n" + " " * width
    return "\n".join(f"{name:<{width}}{indent.join(map(escaped, value))}" for name, value in known)


def columns(rows: Sequence[Sequence[str]], *, left: Sequence[int] = ()) -> str:
    """Return rows of text in aligned columns, escaped; on the right but for those whose numbers are in `left`."""
    # Escaped first, since that changes the width.
    rows = [[escaped(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(c.ljust(w) if i in left else c.rjust(w) for i, (c, w) in enumerate(zip(row, widths, strict=True))).rstrip()
        for row in rows
    )  # fmt: skip


def plural(count: int, noun: str) -> str:
    """Return a count with its noun: ``1 export``, ``2 exports``."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def size_text(size_bytes: float) -> str:
    """Return a number of bytes for people: ``35.7 MB``."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if size_bytes < 1000:
            return f"{size_bytes:.0f} {unit}" if unit == "bytes" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"


def time_text(seconds: float) -> str:
    """Return a duration for people: ``0.42 s``, ``3 min 5 s``, ``2 h 10 min``."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def rate_text(rows_per_s: float) -> str:
    """Return a rate for people, to three digits: ``51,200 rows/s``."""
    # Three digits, with as many behind the point as they leave.
    digits = max(2 - math.floor(math.log10(rows_per_s)), 0) if rows_per_s > 0 else 0
    return f"{float(f'{rows_per_s:.3g}'):,.{digits}f} rows/s"


def size_of(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    return sum(f.stat().st_size for f in path.rglob("*") if f.is_file()) if path.is_dir() else path.stat().st_size
