"""Rows in: what a source and its factory must do."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol

from .batch import Array, Batch, Inputs
from .options import DataOptions


class Source(Protocol):
    """Rows in.

    Attributes:
        length: Number of rows; ``None`` where it is not known before the end.
        id_kind: ``"int"`` or ``"str"``.
        has_labels: Whether batches carry labels.
        class_names: Names of the classes that labels count, where the source knows them (folders of images, `ClassLabel`).
        columns_named: Whether `class_names` may be taken for the columns of a model that names none: so it is where the
            numbers of labels are the data's own, which models are trained on, and not with text labels.
        sequential: Whether reading from a position reads all rows before it, as with iterables.
        in_memory: Whether all rows lie in memory, so that it costs little to read them again.
        is_sliced: Whether a batch is a mere slice of arrays, so that reading ahead would cost more than it brings.
        assumed_batch: The inputs of the first element of an iterable, if only its number of axes says that it is a batch.
        preprocessing: What is done to a row before the model gets it, as JSON types; empty where nothing is.
    """

    @property
    def length(self) -> int | None: ...
    @property
    def id_kind(self) -> str: ...
    @property
    def has_labels(self) -> bool: ...
    @property
    def class_names(self) -> tuple[str, ...] | None: ...
    @property
    def columns_named(self) -> bool: ...
    @property
    def sequential(self) -> bool: ...
    @property
    def in_memory(self) -> bool: ...
    @property
    def is_sliced(self) -> bool: ...
    @property
    def assumed_batch(self) -> Inputs | None: ...
    @property
    def preprocessing(self) -> dict[str, Any]: ...

    def peek(self, n: int) -> Batch:
        """Return the first `n` rows (fewer where there are fewer), any number of times, even of a one-pass generator."""

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Yield every row from position `start` on, in order, each once.

        Borders of batches depend on `size` alone, never on `start`, so that a resumed run cuts its batches as the first
        one did; a `start` within a batch gives that batch's rest first. Where batches can be cut freely they end at
        multiples of `size`. A row that cannot be read ends up in `Batch.bad` unless ``on_error="fail"``: then the rows
        before it are yielded first, and a `DataError` with its position is raised after them.
        """

    def sample(self, n: int, start: int) -> Inputs:
        """Return the inputs of up to `n` rows spread evenly from position `start` on, of the first row's shapes.

        Rows that cannot be read are left out. Without any, and where `sequential`, nothing is returned: no input.
        """

    def annotations(self, start: int, stop: int) -> tuple[Array, Array | None]:
        """Return ids and labels of the rows at positions `start` to ``stop − 1``, without reading the rows.

        Ids are always known so. Labels are ``None`` where there are none, and where only reading a row tells its label.
        """

    def fingerprint(self) -> str:
        """Return a digest of length, shapes, dtypes and a sample of rows spread over the data: equal for equal data."""


class SourceFactory(Protocol):
    """Opens one kind of data. Found by entry point (group ``fo_onnx.sources``)."""

    name: str

    def accepts(self, data: Any) -> bool:
        """Return whether `open` would take `data`. Must be quick, and must not import a framework that is not loaded."""

    def open(self, data: Any, options: DataOptions) -> Source:
        """Return the rows of `data`. Raise `DataError` where they cannot be used."""
