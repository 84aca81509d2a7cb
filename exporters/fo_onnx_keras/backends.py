"""Which way a model goes: through TensorFlow, or, for Keras on another backend, to that framework's own exporter.

TensorFlow's own models always go through TensorFlow. On the torch backend a Keras model is a ``torch.nn.Module``, and on the
JAX backend `keras.Model.stateless_call` is a pure function; both are wrapped so that they take flat inputs by name, and handed on by
the exporter contract. Which precision is computed in, what inputs are called, and the name of the framework are settled here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

from fo_onnx.errors import ExportError, RunError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Array, Devices, Exporter, Inputs, RawModel
from fo_onnx.spec import ModelSpec, TensorSpec

from .failures import in_one_line
from .interfaces import name_of
from .packages import require
from .precision import bookkeeping_kept, computing_in_float32, is_half
from .programs import Program, program
from .recognition import held_layers, is_layer, keras_module

TENSORFLOW = "tensorflow"
_HANDED_ON = ("torch", "jax")
_PACKAGES = {TENSORFLOW: ("tensorflow", "tf2onnx"), "torch": ("torch",), "jax": ("jax", "jaxlib")}


def backend_of(model: Any) -> str:
    """The backend that a model's tensors are of: ``"tensorflow"``, ``"torch"``, ``"jax"``, ``"numpy"``, …."""
    keras = keras_module()
    if keras is None or not (held_layers(model) or _holds_keras(model)):
        return TENSORFLOW
    return str(keras.config.backend())


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Writes `model` to `path`; see `fo_onnx.protocols.Exporter.export`."""
    backend = backend_of(model)
    if backend == TENSORFLOW:
        require("tf2onnx", f"converting {options.model_name or name_of(model)} to ONNX")
        from . import conversion

        return conversion.export(model, example, path, options, output)
    if backend not in _HANDED_ON:
        raise ExportError(
            f"the {backend} backend of Keras has no graph that could become ONNX. Save the model, and load it with "
            "KERAS_BACKEND=tensorflow, torch or jax in the environment."
        )
    run = program(model, list(example), options, output)
    recurrent = _is_recurrent(model)
    if recurrent:
        _refuse_open_axes(run, backend)
    wrapped = _wrapped(run, backend, is_half(model))
    try:
        found = _exporter(backend).export(
            wrapped, _named(run, example), path, _own_options(options, run), OutputOptions()
        )
    except ExportError as err:
        raise ExportError(in_one_line(str(err))) from err
    inputs = tuple(
        # Of undeclared sizes the exporter knows better which are free, but for loops that are unrolled.
        _no_wider(written, called) if recurrent or declared.shape is not None else written
        for written, called, declared in zip(found.inputs, run.specs(example), run.declared, strict=True)
    )
    return replace(found, inputs=inputs, name=run.who, framework="keras")


def open_native(model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions) -> RawModel:
    """`model` in its own framework; see `fo_onnx.protocols.Exporter.native`."""
    backend = backend_of(model)
    if backend == TENSORFLOW:
        from . import native

        return native.open_native(model, example, device, options, output)
    run = program(model, list(example), options, output)
    if backend not in _HANDED_ON:
        from .eager import EagerModel

        return EagerModel(run, run.spec(example), device)

    def opened(lifted: bool) -> RawModel:
        wrapped = _wrapped(run, backend, lifted)
        return _exporter(backend).native(
            wrapped, _named(run, example), device, _own_options(options, run), OutputOptions()
        )

    half = is_half(model)
    inner = opened(lifted=half)
    found = HandedOn(inner, run, run.spec(example))
    # Of weights in half precision the other exporter itself makes a float32 copy, and keeps the original beside it.
    other = opened(lifted=False) if half else inner
    original = other.original or (other if half else None)
    found.original = None if original is None else HandedOn(original, run, run.spec(example))
    return found


def native_only(model: Any, example: Inputs) -> str | None:
    """That the model lives on a TPU, where it does; ``None`` else."""
    backend = backend_of(model)
    if backend == TENSORFLOW:
        from .devices import tpu_of

        found = tpu_of(model)
        return None if found is None else f"the model lives on {found}, and ONNX Runtime does not run on TPUs"
    if backend != "jax":
        return None
    run = program(model, list(example), ModelOptions(), OutputOptions())
    return _exporter(backend).native_only(_wrapped(run, backend, lifted=False), _named(run, example))


def versions() -> dict[str, str]:
    """Versions of Keras, its backend and what converts it, from the packages' metadata; and the backend's name."""
    keras = keras_module()
    backend = keras.config.backend() if keras is not None else os.environ.get("KERAS_BACKEND", TENSORFLOW)
    found = {"keras_backend": str(backend)}
    for package in ("keras", *_PACKAGES.get(str(backend), ())):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


class HandedOn:
    """A Keras model that another framework's runner runs."""

    def __init__(self, wrapped: RawModel, run: Program, spec: ModelSpec) -> None:
        self.spec, self.device = spec, wrapped.device
        self.original: HandedOn | None = None
        self._wrapped, self._program = wrapped, run

    def forward(self, inputs: Inputs) -> Array:
        """The raw output (n, …) in evaluation mode."""
        try:
            return self._wrapped.forward(_named(self._program, inputs))
        except RunError as err:
            raise RunError(in_one_line(str(err))) from err

    def close(self) -> None:
        """Lets the model go."""
        self._wrapped.close()
        if self.original is not None:
            self.original.close()


def _is_recurrent(model: Any) -> bool:
    import keras

    return any(isinstance(layer, keras.layers.RNN) for layer in held_layers(model))


def _refuse_open_axes(run: Program, backend: str) -> None:
    """Raises an `ExportError` for recurrent layers over an axis whose size is left open.

    Keras' loop over time is unrolled while it is traced on these backends: the file would take sequences of any length, and look
    at as many steps as the example had. So it is with ``model.export(format="onnx")`` on the torch backend (Keras 3.15).
    """
    for name, declared in zip(run.names, run.declared, strict=True):
        if declared.shape is not None and None in declared.shape[1:]:
            raise ExportError(
                f"{run.who} has recurrent layers, and its input {name!r} sequences of any length (None in keras.Input): on the {backend} "
                "backend of Keras their loop becomes a graph for one length only. Give keras.Input the length, or load the model with "
                "KERAS_BACKEND=tensorflow."
            )


def _no_wider(written: TensorSpec, called: TensorSpec) -> TensorSpec:
    """The spec of a written input, with the sizes that it was called with where those are fixed."""
    axes = zip(written.shape[1:], called.shape[1:], strict=True)
    return replace(written, shape=(written.shape[0], *(c if w is None else w for w, c in axes)))


def _exporter(backend: str) -> Exporter:
    # By the contract, so that the frameworks' packages need not know each other.
    from fo_onnx import plugins

    return plugins.exporter(backend)


def _own_options(options: ModelOptions, run: Program) -> ModelOptions:
    return replace(options, framework=None, params=None, model_name=run.who)


def _named(run: Program, example: Inputs) -> Inputs:
    return dict(zip(run.names, run.arrays(example), strict=True))


def _wrapped(run: Program, backend: str, lifted: bool) -> Any:
    return _torch_module(run, lifted) if backend == "torch" else _pure_function(run, lifted)


def _in_order(run: Program) -> Callable[[Sequence[Any], dict[str, Any]], list[Any]]:
    """Puts tensors that come by position, or by name with nested names taken apart, into the program's order."""

    def order(tensors: Sequence[Any], named: dict[str, Any]) -> list[Any]:
        if tensors:
            return list(tensors)
        found = []
        for name in run.names:
            value: Any = named
            for part in name.split("."):
                value = value[int(part)] if isinstance(value, list | tuple) else value[part]
            found.append(value)
        return found

    return order


def _torch_module(run: Program, lifted: bool) -> Any:
    import torch

    order = _in_order(run)

    class Flat(torch.nn.Module):
        """A Keras model on the torch backend, with inputs by name and one tensor out."""

        def __init__(self) -> None:
            super().__init__()
            # Registered, so that its weights are seen, moved and copied with it.
            self.layers = torch.nn.ModuleList([run.model] if is_layer(run.model) else held_layers(run.model))

        def forward(self, *tensors: Any, **named: Any) -> Any:
            # Of a copy, on another device or in float32, the copied model is meant.
            target = self.layers[0] if is_layer(run.model) else None
            with _evaluating(run.model if target is None else target, lifted):
                return run(order(tensors, named), torch.is_tensor, target)

    Flat.__name__ = Flat.__qualname__ = run.who
    return Flat()


def _pure_function(run: Program, lifted: bool) -> Any:
    import jax

    order, model = _in_order(run), run.model

    def is_tensor(value: Any) -> bool:
        return isinstance(value, jax.Array)

    def stateless(*args: Any, **keywords: Any) -> Any:
        trainable = [v.value for v in model.trainable_variables]
        rest = [v.value for v in model.non_trainable_variables]
        found, _ = model.stateless_call(trainable, rest, *args, **keywords)
        return found

    def forward(*tensors: Any, **named: Any) -> Any:
        with _evaluating(model, lifted):
            target = stateless if hasattr(model, "stateless_call") else None
            return run(order(tensors, named), is_tensor, target)

    forward.__name__ = forward.__qualname__ = run.who
    return forward


@contextlib.contextmanager
def _evaluating(model: Any, lifted: bool) -> Iterator[None]:
    """A call of a model that leaves its variables and losses as they were; in float32 where its precision is lifted.

    Entered by what is handed on, and not around it: the other exporter may copy the model, or trace it at another time.
    """
    import keras

    with contextlib.ExitStack() as stack:
        stack.enter_context(bookkeeping_kept(model))
        if lifted:
            stack.enter_context(computing_in_float32(model))
        stack.enter_context(keras.StatelessScope())
        yield


def _holds_keras(model: Any) -> bool:
    from fo_onnx import introspection

    keras = keras_module()
    if keras is None or not callable(model):
        return False
    return any(v is keras or v is keras.ops or isinstance(v, keras.Variable) for v in introspection.held(model))
