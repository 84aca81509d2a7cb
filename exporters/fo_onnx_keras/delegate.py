"""Keras on another backend than TensorFlow: the model is handed on to the exporter of that framework.

On the torch backend a Keras model is a ``torch.nn.Module``, and on the JAX backend `keras.Model.stateless_call` is a
pure function; both are wrapped so that they take flat inputs by name. Which precision is computed in, what inputs are
called, and the name of the framework are decided here. On a backend without graphs, such as numpy, the model runs as it
is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import keras
import numpy as np

from fo_onnx.contracts.batch import Array, Inputs
from fo_onnx.contracts.exporter import Devices
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.runner import RawModel
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import DeviceError, ExportError, FoOnnxError, RunError
from fo_onnx.models import plugins

from .detect import backend_of, is_layer, layers_of
from .messages import first_cause, in_one_line
from .precision import guard_layers, is_half
from .program import Program, make_program

_WITH_EXPORTER = ("torch", "jax")


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Write `model` to `path` by the exporter of its backend; see `fo_onnx.contracts.Exporter.export`."""
    backend = backend_of(model)
    if backend not in _WITH_EXPORTER:
        raise ExportError(
            f"the {backend} backend of Keras has no graph that could become ONNX. Save the model, and load it with "
            "KERAS_BACKEND=tensorflow, torch or jax in the environment."
        )
    program = make_program(model, list(example), options, output)
    is_recurrent = any(isinstance(layer, keras.layers.RNN) for layer in layers_of(model))
    if is_recurrent:
        _refuse_open_axes(program, backend)
    wrapped = _wrap(program, backend, in_float32=is_half(model))
    # By the contract, so that the frameworks' packages need not know each other.
    try:
        spec = plugins.exporter(backend).export(
            wrapped, _by_name(program, example), path, replace(options, model_name=program.model_name), OutputOptions()
        )
    except ExportError as err:
        raise ExportError(in_one_line(str(err))) from err
    inputs = tuple(
        # Of undeclared sizes the exporter knows better which are free, but for loops that are unrolled.
        _no_wider(written, called) if is_recurrent or declared.shape is not None else written
        for written, called, declared in zip(spec.inputs, program.specs(example), program.declared, strict=True)
    )
    return replace(spec, inputs=inputs, name=program.model_name, framework="keras")


def open_native(model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions) -> RawModel:
    """Open `model` in its own framework; see `fo_onnx.contracts.Exporter.native`."""
    backend = backend_of(model)
    program = make_program(model, list(example), options, output)
    spec = program.spec(example)
    if backend not in _WITH_EXPORTER:
        return EagerModel(program, spec, device)

    def open_wrapped(*, in_float32: bool) -> RawModel:
        wrapped = _wrap(program, backend, in_float32=in_float32)
        own_options = replace(options, model_name=program.model_name)
        return plugins.exporter(backend).native(
            wrapped, _by_name(program, example), device, own_options, OutputOptions()
        )

    # What runs computes in float32.
    half = is_half(model)
    inner = open_wrapped(in_float32=half)
    # Of weights in half precision the other exporter itself makes a float32 copy, and holds the original, too.
    as_is = open_wrapped(in_float32=False) if half else inner
    original = as_is.original or (as_is if half else None)
    wrapped_original = None if original is None else DelegatedModel(original, program, spec, None)
    return DelegatedModel(inner, program, spec, wrapped_original)


def prefer_native(model: Any, example: Inputs) -> str | None:
    """Return why JAX's exporter prefers to run a model on the JAX backend; ``None`` on other backends."""
    if backend_of(model) != "jax":
        return None
    program = make_program(model, list(example), ModelOptions(), OutputOptions())
    wrapped = _wrap(program, "jax", in_float32=False)
    return plugins.prefer_native(plugins.exporter("jax"), wrapped, _by_name(program, example))


class DelegatedModel:
    """A Keras model that the runner of another framework runs.

    Attributes:
        spec: The model.
        device: Where it runs.
        original: The model in its own precision, if this is computed in float32 instead.
    """

    def __init__(self, inner: RawModel, program: Program, spec: ModelSpec, original: DelegatedModel | None) -> None:
        self.spec, self.device, self.original = spec, inner.device, original
        self._inner, self._program = inner, program

    def forward(self, inputs: Inputs) -> Array:
        """Return the raw output (n, …) in evaluation mode."""
        try:
            return self._inner.forward(_by_name(self._program, inputs))
        except RunError as err:
            raise RunError(in_one_line(str(err))) from err

    def close(self) -> None:
        """Let the model go."""
        self._inner.close()
        if self.original is not None:
            self.original.close()


class EagerModel:
    """A Keras model on a backend without graphs, called layer by layer."""

    device = "cpu"
    original: RawModel | None = None

    def __init__(self, program: Program, spec: ModelSpec, device: Devices) -> None:
        """Take a model. Raises `DeviceError` if another device than the CPU was asked for."""
        self.spec, self._program, self._backend = spec, program, keras.config.backend()
        if device not in ("auto", "cpu"):
            raise DeviceError(
                f"device={device!r} was asked for, but the {self._backend} backend of Keras has only cpu."
            )

    def forward(self, inputs: Inputs) -> Array:
        """Return the raw output (n, …) in evaluation mode. Raises `RunError` if the model refuses the inputs."""
        program = self._program
        arrays = program.arrays(inputs)
        try:
            with guard_layers(program.model, in_float32=True), keras.StatelessScope():
                tensor = program([keras.ops.convert_to_tensor(a) for a in arrays], keras.ops.is_tensor)
        except FoOnnxError:
            raise
        except Exception as err:
            raise RunError(program.failure(self._backend, arrays, first_cause(err))) from err
        return np.asarray(keras.ops.convert_to_numpy(tensor))

    def close(self) -> None:
        """Do nothing: there is nothing to free."""


def _refuse_open_axes(program: Program, backend: str) -> None:
    """Raise an `ExportError` for recurrent layers over an axis whose size is left open.

    Keras' loop over time is unrolled while it is traced on these backends: the file would take sequences of any length,
    and look at as many steps as the example had. So it is with ``model.export(format="onnx")`` on the torch backend
    (Keras 3.15).
    """
    for name, declared in zip(program.names, program.declared, strict=True):
        if declared.shape is not None and None in declared.shape[1:]:
            raise ExportError(
                f"{program.model_name} has recurrent layers, and its input {name!r} sequences of any length (None in "
                f"keras.Input): on the {backend} backend of Keras their loop becomes a graph for one length only. Give keras.Input "
                "the length, or load the model with KERAS_BACKEND=tensorflow."
            )


def _no_wider(written: TensorSpec, called: TensorSpec) -> TensorSpec:
    """Return the spec of a written input, with the sizes that it was called with where those are fixed."""
    axes = zip(written.shape[1:], called.shape[1:], strict=True)
    return replace(written, shape=(written.shape[0], *(c if w is None else w for w, c in axes)))


def _by_name(program: Program, inputs: Inputs) -> Inputs:
    return dict(zip(program.names, program.arrays(inputs), strict=True))


def _in_order(program: Program, tensors: Sequence[Any], keywords: dict[str, Any]) -> list[Any]:
    """Return tensors that come by position, or by name with nested names taken apart, in the order of the program."""
    if tensors:
        return list(tensors)
    values = []
    for name in program.names:
        value: Any = keywords
        for part in name.split("."):
            value = value[int(part)] if isinstance(value, list | tuple) else value[part]
        values.append(value)
    return values


def _wrap(program: Program, backend: str, *, in_float32: bool) -> Any:
    """Return a program as a model of its backend, with inputs by name and one tensor out.

    The call of the model leaves its variables and losses as they were. That is seen to within what is handed on, not
    around it: the other exporter may copy the model, or trace it at another time.
    """
    return _torch_module(program, in_float32) if backend == "torch" else _pure_function(program, in_float32)


def _torch_module(program: Program, in_float32: bool) -> Any:
    import torch

    class Flat(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            # Registered, so that its weights are seen, moved and copied with it.
            self.layers = torch.nn.ModuleList([program.model] if is_layer(program.model) else layers_of(program.model))

        def forward(self, *tensors: Any, **keywords: Any) -> Any:
            # Of a copy, on another device or in float32, the copied model is meant.
            target = self.layers[0] if is_layer(program.model) else None
            model = program.model if target is None else target
            with guard_layers(model, in_float32=in_float32), keras.StatelessScope():
                return program(_in_order(program, tensors, keywords), torch.is_tensor, target)

    Flat.__name__ = Flat.__qualname__ = program.model_name
    return Flat()


def _pure_function(program: Program, in_float32: bool) -> Any:
    import jax

    model = program.model

    def call_stateless(*args: Any, **keywords: Any) -> Any:
        # Read at each call, so that the weights are those of the model now.
        trainable = [v.value for v in model.trainable_variables]
        rest = [v.value for v in model.non_trainable_variables]
        output, _ = model.stateless_call(trainable, rest, *args, **keywords)
        return output

    def forward(*tensors: Any, **keywords: Any) -> Any:
        with guard_layers(model, in_float32=in_float32), keras.StatelessScope():
            target = call_stateless if hasattr(model, "stateless_call") else None
            return program(_in_order(program, tensors, keywords), lambda v: isinstance(v, jax.Array), target)

    forward.__name__ = forward.__qualname__ = program.model_name
    return forward
