"""One framework: what a plugin must do, and what only some plugins offer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from .batch import Array, Inputs
from .options import ModelOptions, OutputOptions
from .runner import RawModel
from .spec import InputSignature, ModelSpec

Devices = str | tuple[str, ...]
"""``"auto"``, or names as `fo_onnx.runtime.devices.Device` writes them: ``"cpu"``, ``"cuda:1"``, ``"tpu:0"``, one or several."""


class Exporter(Protocol):
    """One framework. Found by entry point (group ``fo_onnx.exporters``).

    What only some frameworks offer stands in the protocols below, which are looked for with `isinstance`: `OpensFiles`,
    `LoadsWeights`, `BindsParams`, `PrefersNative`, `OffersNativePaths`.

    Attributes:
        name: The framework's name, as in ``framework=``.
        modules: The framework's top-level modules, for example ``("torch",)``. `accepts` is only asked once one of them is
            loaded, so that it may import them.
    """

    name: str
    modules: tuple[str, ...]

    def accepts(self, model: Any) -> bool:
        """Return whether `model` is one of this framework's. Must be quick."""

    def signature(self, model: Any) -> InputSignature | None:
        """Return the inputs that `model` takes, as far as they are known without running it."""

    def export(
        self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions
    ) -> ModelSpec:
        """Write `model` to `path` as ONNX, with its raw output as the only one and a dynamic batch axis.

        If a number of rows is built into `model` itself, the file has it too, and the inputs of the spec say so. Leaves `model` as
        it was. Raises `ExportError` naming the operator or the line.
        """

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """Return the model in its own framework, on `device`; on several devices each batch is spread over them.

        If the model names its classes, its spec does; an export of it gets the same names.

        Raises `DeviceError` if a device is not there, listing those that are, or if the framework takes only one.
        """

    def fingerprint(self, model: Any, example: Inputs) -> str:
        """Return a digest of the model's name and weights, equal across processes for the same model."""

    def versions(self) -> dict[str, str]:
        """Return the versions of the framework's packages, for the record."""


@runtime_checkable
class OpensFiles(Protocol):
    """An exporter that opens model files.

    Attributes:
        suffixes: Suffixes of the files, for example ``(".pt", ".pth")``.
    """

    suffixes: tuple[str, ...]

    def opens(self, path: Path) -> bool:
        """Return whether `load` is for the file or folder at `path`, by its name and by what lies in the folder."""

    def load(self, path: Path, *, trust: bool) -> Any:
        """Return the model in a file. Raises `TrustError` if that would run code and `trust` is false."""


@runtime_checkable
class LoadsWeights(Protocol):
    """An exporter that fills a model with the weights in a file."""

    def load_weights(self, model: Any, path: Path) -> None:
        """Fill `model` with the weights in a file, without running code from it. Raises `ModelError`."""


@runtime_checkable
class BindsParams(Protocol):
    """An exporter of a functional framework, whose models take their parameters as an argument."""

    def bind_params(self, model: Any, params: Any) -> Any:
        """Return `model` with its parameters, as what the other methods take. Raises `OptionError`."""


@runtime_checkable
class PrefersNative(Protocol):
    """An exporter some of whose models are better run natively, without an export being tried."""

    def prefer_native(self, model: Any, example: Inputs) -> str | None:
        """Return why `model` is better run natively; ``None`` if ONNX is the first choice.

        It is not asked with ``runner="onnx"``.
        """


RunsRows = Callable[[Inputs, int], Array]
"""Runs rows in batches of a size, the second argument, and returns the raw output (n, …)."""


@dataclass(frozen=True)
class NativePath:
    """A way to run a model that an expert of its framework would write by hand, for a benchmark.

    Attributes:
        name: What it is called: ``"torch.compile"``.
        open: Prepares it, which may take long, and gives what runs rows. The model is left as it was in the end.
    """

    name: str
    open: Callable[[], AbstractContextManager[RunsRows]]


@runtime_checkable
class OffersNativePaths(Protocol):
    """An exporter that knows the quick ways of its framework to run a model."""

    def native_paths(
        self, model: Any, example: Inputs, options: ModelOptions, output: OutputOptions
    ) -> Sequence[NativePath]:
        """Return the ways to run `model`, the plain one first."""
