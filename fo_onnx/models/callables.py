"""Plain callables over numpy arrays: a model of no framework, which runs natively."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Inputs, OwnInputs
from ..contracts.exporter import Devices
from ..contracts.options import ModelOptions, OutputOptions
from ..contracts.runner import RawModel
from ..contracts.spec import InputSignature, ModelSpec, TensorSpec
from ..errors import DeviceError, ExportError, OutputError, RunError
from ..plugin_kit import digests

REASON = "a plain callable has no graph that could become ONNX"


class CallableModel:
    """A callable as a `RawModel`: one array, or a dict of arrays where the data has several, in; an array out."""

    device = "cpu"
    original: RawModel | None = None

    def __init__(self, function: Any, spec: ModelSpec, output_name: str | None) -> None:
        self.spec = spec
        self._function, self._output_name = function, output_name

    def forward(self, inputs: Inputs) -> NDArray[Any]:
        """Return what the callable gives for a batch, as an array.

        Raises:
            RunError: The callable raised.
            OutputError: It gave something that is no array of numbers.
        """
        # Copies of what is the caller's own, since a function may work in place.
        arrays = [a if isinstance(inputs, OwnInputs) else a.copy() for a in inputs.values()]
        try:
            positional = all(k.isdecimal() for k in inputs)
            output = self._function(*arrays) if positional else self._function(dict(zip(inputs, arrays, strict=True)))
        except Exception as err:
            shapes = ", ".join(f"{a.dtype} {a.shape}" for a in arrays)
            raise RunError(f"running {self.spec.name} on {shapes} failed: {type(err).__name__}: {err}") from err
        return self._to_array(output)

    def close(self) -> None:
        """Free nothing."""

    def _to_array(self, output: Any) -> NDArray[Any]:
        if isinstance(output, dict):
            name = self._output_name or "logits"
            if name not in output:
                raise OutputError(
                    f"{self.spec.name} returns a dict without {name!r}; its keys are {list(output)}. Say output_name=."
                )
            output = output[name]
        detach = getattr(output, "detach", None)
        try:
            array = np.asarray(detach().cpu() if detach is not None else output)
        except (ValueError, TypeError) as err:
            raise OutputError(
                f"{self.spec.name} returns a {type(output).__name__} that is no array ({str(err).rstrip('.')}); class scores as "
                "numbers, shape (n, classes), were expected."
            ) from err
        if array.dtype.kind not in "fiu":
            whats = {"U": "text", "S": "text", "O": f"an object of type {type(output).__name__}"}
            what = whats.get(array.dtype.kind, f"{array.dtype} values")
            raise OutputError(
                f"{self.spec.name} returns {what}; class scores as numbers, shape (n, classes), were expected."
            )
        return array


class CallableExporter:
    """The plugin of what cannot be exported."""

    name = "callable"
    modules: tuple[str, ...] = ()

    def accepts(self, model: Any) -> bool:
        """Return whether it can be called."""
        return callable(model)

    def bind_params(self, model: Any, params: Any) -> Any:
        """Return the callable with `params` as its first argument."""
        return functools.partial(model, params)

    def prefer_native(self, model: Any, example: Inputs) -> str:
        """Return that there is nothing but the native way."""
        return REASON

    def signature(self, model: Any) -> InputSignature | None:
        """Return ``None``: a callable takes what it is given."""
        return None

    def export(self, model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> NoReturn:
        """Raise an `ExportError`."""
        raise ExportError(f"{REASON}. Give the model of its framework instead, or say runner='native'.")

    def native(
        self, model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
    ) -> RawModel:
        """Return the callable itself."""
        if device not in ("auto", "cpu"):
            raise DeviceError(
                f"device={device!r} was asked for, but a plain callable runs where it runs; say device='cpu'."
            )
        name = str(options.model_name or getattr(model, "__qualname__", type(model).__name__))
        inputs = tuple(TensorSpec(k, str(a.dtype), (None, *a.shape[1:])) for k, a in example.items())
        spec = ModelSpec(inputs=inputs, output=TensorSpec("output", "float32", ()), name=name, framework=self.name)
        return CallableModel(model, spec, output.output_name)

    def fingerprint(self, model: Any, example: Inputs) -> str:
        """Return a digest of the callable's name, its code, and the plain values and arrays that it holds."""
        return digests.sha256_of(digests.of_callable(model))

    def versions(self) -> dict[str, str]:
        """Return nothing: there is no framework."""
        return {}
