"""Plain callables over numpy arrays: a model of no framework, which runs natively."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from .. import digests
from ..errors import DeviceError, ExportError, ModelError, OutputError, RunError
from ..options import ModelOptions, OutputOptions
from ..protocols import Devices, Inputs, OwnInputs, RawModel
from ..spec import InputSignature, ModelSpec, TensorSpec

REASON = "a plain callable has no graph that could become ONNX"


class CallableModel:
    """A callable as a `RawModel`: one array, or a dict of arrays where the data has several, in; an array out."""

    device = "cpu"
    original: RawModel | None = None

    def __init__(self, function: Any, spec: ModelSpec, output_name: str | None) -> None:
        self.spec = spec
        self._function, self._output_name = function, output_name

    def forward(self, inputs: Inputs) -> NDArray[Any]:
        """What the callable gives for a batch, as an array.

        Raises:
            RunError: The callable raised.
            OutputError: It gave something that is no array of numbers.
        """
        # Copies of what is the caller's own, since a function may work in place.
        arrays = [a if isinstance(inputs, OwnInputs) else a.copy() for a in inputs.values()]
        try:
            positional = all(k.isdecimal() for k in inputs)
            found = self._function(*arrays) if positional else self._function(dict(zip(inputs, arrays, strict=True)))
        except Exception as err:
            shapes = ", ".join(f"{a.dtype} {a.shape}" for a in arrays)
            raise RunError(f"running {self.spec.name} on {shapes} failed: {type(err).__name__}: {err}") from err
        return self._array(found)

    def close(self) -> None:
        """Nothing to free."""

    def _array(self, found: Any) -> NDArray[Any]:
        if isinstance(found, dict):
            name = self._output_name or "logits"
            if name not in found:
                raise OutputError(
                    f"{self.spec.name} returns a dict without {name!r}; its keys are {list(found)}. Say output_name=."
                )
            found = found[name]
        detach = getattr(found, "detach", None)
        try:
            array = np.asarray(detach().cpu() if detach is not None else found)
        except (ValueError, TypeError) as err:
            raise OutputError(
                f"{self.spec.name} returns a {type(found).__name__} that is no array ({str(err).rstrip('.')}); class scores as "
                "numbers, shape (n, classes), were expected."
            ) from err
        if array.dtype.kind not in "fiu":
            what = "text" if array.dtype.kind in "US" else f"{array.dtype} values"
            if array.dtype.kind == "O":
                what = f"an object of type {type(found).__name__}"
            raise OutputError(
                f"{self.spec.name} returns {what}; class scores as numbers, shape (n, classes), were expected."
            )
        return array


class CallableExporter:
    """The contract of an exporter for what cannot be exported."""

    name = "callable"
    suffixes: tuple[str, ...] = ()

    def accepts(self, model: Any) -> bool:
        """Whether it can be called."""
        return callable(model)

    def opens(self, path: Path) -> bool:
        """Never: there are no files of callables."""
        return False

    def bound(self, model: Any, params: Any) -> Any:
        """The callable with `params` as its first argument."""
        return functools.partial(model, params)

    def native_only(self, model: Any, example: Inputs) -> str:
        """There is nothing but the native way."""
        return REASON

    def signature(self, model: Any) -> InputSignature | None:
        """Unknown: a callable takes what it is given."""
        return None

    def export(self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> NoReturn:
        """Raises an `ExportError`."""
        raise ExportError(f"{REASON}. Give the model of its framework instead, or say engine='native'.")

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """The callable itself."""
        if device not in ("auto", "cpu"):
            raise DeviceError(
                f"device={device!r} was asked for, but a plain callable runs where it runs; say device='cpu'."
            )
        name = str(options.model_name or getattr(model, "__qualname__", type(model).__name__))
        inputs = tuple(TensorSpec(k, str(a.dtype), (None, *a.shape[1:])) for k, a in example.items())
        spec = ModelSpec(inputs=inputs, output=TensorSpec("output", "float32", ()), name=name, framework=self.name)
        return CallableModel(model, spec, output.output_name)

    def fingerprint(self, model: Any) -> str:
        """A digest of the callable's name, its code, and what it holds as far as that is plain or an array."""
        digest = hashlib.sha256()
        for part in digests.of_callable(model):
            digest.update(part)
        return digest.hexdigest()

    def versions(self) -> dict[str, str]:
        """None: there is no framework."""
        return {}

    def load(self, path: Path, *, trust: bool) -> NoReturn:
        """Raises a `ModelError`: there are no files of callables."""
        raise ModelError(f"{path} is no callable.")

    def load_weights(self, model: Any, path: Path) -> NoReturn:
        """Raises a `ModelError`: a plain callable has no weights that could be filled."""
        raise ModelError("weights were given for a plain callable, which has none that could be filled.")
