"""Rows in: arrays, files, sequences, iterables, Parquet and folders of images as one kind of source."""

from .images import ImageFolder
from .opening import open_builtin, open_source
from .read_ahead import read_ahead

__all__ = ["ImageFolder", "open_builtin", "open_source", "read_ahead"]
