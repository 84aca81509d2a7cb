"""Rows that are read one by one, some of which cannot be read."""

from __future__ import annotations

from typing import Any


class BrokenRows:
    """The rows of an array, or of whatever else has rows.

    Args:
        x: The rows.
        broken: The positions of those that cannot be read.
    """

    def __init__(self, x: Any, *broken: int) -> None:
        self.x, self.broken = x, broken

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, position: int) -> Any:
        if position in self.broken:
            raise OSError("the disk is failing")
        return self.x[position]
