"""The contracts between the rooms: what an exporter, a source, a runner and a sink must do.

Each is a Protocol, so that a new framework or format joins by having the methods, not by inheriting. Each has a test
suite in ``tests/contracts`` that an implementation joins by writing fixtures.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .options import DataOptions, ModelOptions, OutputOptions
from .spec import InputSignature, ModelSpec

Array = NDArray[Any]
Inputs = Mapping[str, Array]
"""Arrays by input name, batch axis first. Inputs that have no name of their own are called ``"0"``, ``"1"``, …; those
of nested structures have their path, joined by dots (``"image.left"``)."""


class OwnInputs(dict[str, Array]):
    """Inputs whose arrays were made for one run of the model, so that one that works in place may have them without a copy."""


Devices = str | tuple[str, ...]
"""``"auto"``, or names as `fo_onnx.engine.providers.Device` writes them: ``"cpu"``, ``"cuda:1"``, ``"tpu:0"``, one or several."""


@dataclass(frozen=True)
class BadRow:
    """A row that could not be read or run.

    Attributes:
        position: Its position in the source, counted from 0.
        id: Its id.
        reason: What went wrong.
    """

    position: int
    id: int | str
    reason: str


@dataclass(frozen=True)
class Batch:
    """Consecutive rows of a source.

    Attributes:
        ids: (n,) int64, or text (numpy ``U`` or object of str).
        inputs: Arrays of shape (n, …) by input name.
        labels: (n,) int64, or ``None``.
        start: Position in the source of the first row that this batch accounts for, counted from 0.
        bad: Rows among those accounted for that could not be read, in order. They are not among `ids`.
    """

    ids: Array
    inputs: dict[str, Array]
    labels: NDArray[np.int64] | None
    start: int
    bad: tuple[BadRow, ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def stop(self) -> int:
        """Position after the last row that this batch accounts for."""
        return self.start + len(self.ids) + len(self.bad)


class Source(Protocol):
    """Rows in.

    Attributes:
        length: Number of rows; ``None`` where it is not known before the end.
        id_kind: ``"int"`` or ``"str"``.
        has_labels: Whether batches carry labels.
        class_names: Names of the classes that labels count, where the source knows them (folders of images).
        columns_named: Whether `class_names` may be taken for the columns of a model that names none: so it is with folders
            of images, which are numbered in sorted order wherever models are trained on them, and not with text labels.
        sequential: Whether reading from a position reads all rows before it, as with iterables.
        in_memory: Whether a batch is a mere slice, so that reading ahead would cost more than it brings.
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
    def preprocessing(self) -> dict[str, Any]: ...

    def peek(self, n: int) -> Batch:
        """The first `n` rows (fewer where there are fewer), any number of times, even of a one-pass generator."""

    def batches(self, size: int, start: int = 0) -> Iterator[Batch]:
        """Every row from position `start` on, in order, each once.

        Borders of batches depend on `size` alone, never on `start`, so that a resumed run cuts its batches as the first
        one did; a `start` within a batch gives that batch's rest first. Where batches can be cut freely they end at
        multiples of `size`. A row that cannot be read ends up in `Batch.bad` unless ``on_error="fail"``: then the rows
        before it are yielded first, and a `DataError` with its position is raised after them.
        """

    def annotations(self, start: int, stop: int) -> tuple[Array, NDArray[np.int64] | None]:
        """Ids and labels of the rows at positions `start` to ``stop − 1``, without reading the rows.

        Ids are always known so. Labels are ``None`` where there are none, and where only reading a row tells its label.
        """

    def fingerprint(self) -> str:
        """A digest of length, shapes, dtypes and a sample of rows spread over the data: equal for equal data."""


class SourceFactory(Protocol):
    """Opens one kind of data. Found by entry point (group ``fo_onnx.sources``)."""

    name: str

    def accepts(self, data: Any) -> bool:
        """Whether `open` would take `data`. Must be quick, and must not import a framework that is not loaded."""

    def open(self, data: Any, options: DataOptions) -> Source:
        """The rows of `data`. Raises `DataError` where they cannot be used."""


@dataclass(frozen=True)
class RunOutput:
    """What one batch becomes.

    Attributes:
        probs: (n, k) float32. Rows that are no distribution are NaN.
        logits: (n, k) float32 where they were asked for, else ``None``.
    """

    probs: NDArray[np.float32]
    logits: NDArray[np.float32] | None = None


class Runner(Protocol):
    """Runs batches.

    Attributes:
        spec: The model.
        device: Where it runs.
        kind: ``"onnx"`` or ``"native"``.
    """

    spec: ModelSpec
    device: str
    kind: str

    def run(self, inputs: Inputs) -> RunOutput:
        """Distributions of one batch of any size, row by row in order. Does not change `inputs`."""

    def close(self) -> None:
        """Frees what it holds. May be called twice."""


class RawModel(Protocol):
    """A model in its own framework, as arrays in and an array out. The core adds the probability head.

    Attributes:
        spec: The model; `ModelSpec.output_kind` is ``None``.
        device: Where it runs.
        original: The same model in its own precision, where `forward` runs a float32 copy of it; else ``None``.
    """

    spec: ModelSpec
    device: str

    @property
    def original(self) -> RawModel | None: ...

    def forward(self, inputs: Inputs) -> Array:
        """The raw output (n, …) of a batch of `n` rows, in evaluation mode. Raises `OutputError` for what is no array."""

    def close(self) -> None:
        """Frees what it holds. May be called twice."""


class Exporter(Protocol):
    """One framework. Found by entry point (group ``fo_onnx.exporters``).

    Attributes:
        name: The framework's name, as in ``framework=``.
        suffixes: Suffixes of model files that `load` opens, for example ``(".pt", ".pth")``.
    """

    name: str
    suffixes: tuple[str, ...]

    def accepts(self, model: Any) -> bool:
        """Whether `model` is one of this framework's. Must be quick, and must not import it if it is not loaded."""

    def opens(self, path: Path) -> bool:
        """Whether `load` is for the file or folder at `path`, told by its name and what lies in the folder."""

    def bound(self, model: Any, params: Any) -> Any:
        """`model` with parameters that are given beside it, as what the other methods take.

        Raises `OptionError` where the framework's models hold their own.
        """

    def signature(self, model: Any) -> InputSignature | None:
        """The inputs that `model` takes, as far as they can be told without running it."""

    def native_only(self, model: Any, example: Inputs) -> str | None:
        """Why `model` is better run natively, without an export being tried; ``None`` where ONNX is the first choice.

        With ``engine="onnx"`` nobody asks.
        """

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Writes `model` to `path` as ONNX, with its raw output as the only one and a dynamic batch axis.

        Leaves `model` as it was. Raises `ExportError` naming the operator or the line.
        """

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """The model in its own framework, on `device`; on several each batch is spread over them.

        Raises `DeviceError` where one is not there, listing those that are, or where the framework takes only one.
        """

    def fingerprint(self, model: Any) -> str:
        """A digest of structure and weights, equal across processes for the same model."""

    def versions(self) -> dict[str, str]:
        """Versions of the framework's packages, for the record."""

    def load(self, path: Path, *, trust: bool) -> Any:
        """The model in a file. Raises `TrustError` where that would run code and `trust` is false."""

    def load_weights(self, model: Any, path: Path) -> None:
        """Fills `model` with the weights in a file, without running code from it. Raises `ModelError`."""


class Sink(Protocol):
    """Rows out."""

    def append(
        self,
        ids: Array,
        probs: NDArray[np.float32],
        labels: NDArray[np.int64] | None,
        logits: NDArray[np.float32] | None,
        bad: Sequence[BadRow] = (),
    ) -> None:
        """Takes the next rows, and those among them that came to nothing. Called in the order of the source.

        Raises `StoreError` for ids that were there already and for rows that are no distribution.
        """

    def commit(self, meta: dict[str, Any]) -> None:
        """Ends the run: everything is in its place, whole."""

    def abort(self, error: BaseException) -> Path | None:
        """Ends the run early and keeps the finished rows. Returns where they are, or ``None`` if nowhere."""
