"""The bar on standard error: rows done, rate, time left. Quiet where standard error is no terminal, unless asked for."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any


class Progress:
    """A bar that rows are reported to. A context manager."""

    def __init__(self, show: bool | None, total: int | None, done: int = 0) -> None:
        """Opens the bar.

        Args:
            show: Whether to show it; ``None`` shows it where standard error is a terminal.
            total: Number of rows, where it is known.
            done: Rows that an earlier run finished.
        """
        self._bar: Any = None
        if show or (show is None and sys.stderr.isatty()):
            from tqdm import tqdm

            self._bar = tqdm(
                total=total, initial=done, unit="row", unit_scale=True, desc="distributions", file=sys.stderr
            )

    def advance(self, rows: int) -> None:
        """Reports `rows` more rows."""
        if self._bar is not None:
            self._bar.update(rows)

    def __enter__(self) -> Progress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()
