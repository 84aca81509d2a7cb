"""Runs models over data: sessions, runners, the choice between them, and the way of the rows."""

from .engine import Engine

__all__ = ["Engine"]
