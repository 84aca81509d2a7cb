"""Runs models over data: sessions, runners, the choice between them, and the way of the rows."""

from .engine import Engine
from .run import Target

__all__ = ["Engine", "Target"]
