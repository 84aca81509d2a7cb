"""A model as a function of flat tensors, whatever it is and whatever backend its tensors are of.

The exported graph and the native runner must call a model alike, so both do it through a `Program`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fo_onnx.contracts.batch import Array, Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import DataError, ModelError, RunError
from fo_onnx.plugin_kit import captured
from fo_onnx.plugin_kit.calling import pick_output, plan_call

from .detect import is_layer, layers_of
from .interface import (
    TEXT,
    Declared,
    advise_signature,
    callee_of,
    entry_point,
    interface_of,
    name_of,
    parameters_of,
    takes_training,
)
from .precision import HALVES


@dataclass(frozen=True)
class Program:
    """A model with flat tensors in and the one tensor with class scores out.

    Attributes:
        model: The model.
        model_name: Its name.
        keys: The inputs as the data name them, in order.
        declared: What the model says of each, in the same order; only its name if it says nothing.
        output_name: Which output is meant.
        keeps_float64: Whether inputs of undeclared dtype stay float64, rather than become the floats of the model.
    """

    model: Any
    model_name: str
    keys: tuple[str, ...]
    declared: tuple[Declared, ...]
    output_name: str | None
    arguments: Callable[[Sequence[Any]], tuple[tuple[Any, ...], dict[str, Any]]]
    keeps_float64: bool = False

    def __call__(self, tensors: Sequence[Any], is_tensor: Callable[[Any], bool], target: Any = None) -> Any:
        """Return the raw output (n, …) as a tensor, in evaluation mode.

        Args:
            tensors: One tensor for each of `keys`.
            is_tensor: Whether a value is one of the backend's tensors.
            target: What is called in the model's place.

        Raises:
            OutputError: It gives no tensor, or several of which none is meant.
        """
        args, keywords = self.arguments(tensors)
        # Keras leaves the argument out where a layer does not take it.
        if is_layer(self.model) or takes_training(self.model):
            keywords = {**keywords, "training": False}
        function = self.model if is_layer(self.model) else entry_point(self.model)
        outputs = (function if target is None else target)(*args, **keywords)
        return pick_output(self._by_layer_name(outputs), self.output_name, self.model_name, is_tensor)

    @property
    def names(self) -> tuple[str, ...]:
        """Return the inputs as the model names them, in the order of `keys`."""
        return tuple(d.name for d in self.declared)

    @property
    def fixed_rows(self) -> int | None:
        """Return how many rows the model takes at a time, if its signature says a number."""
        return next((d.rows for d in self.declared if d.rows), None)

    @contextlib.contextmanager
    def no_new_weights(self) -> Iterator[None]:
        """Raise a `ModelError` if a call within the context built layers, which gives them random weights."""
        before = self._count_weights()
        yield
        if added := self._count_weights() - before:
            raise ModelError(
                f"{self.model_name} was built in part only: it made {added} new weights, with random values, when it was called. "
                "Call it on a batch before its weights are loaded or trained."
            )

    def arrays(self, inputs: Inputs) -> list[Array]:
        """Return a batch, named as data or as model name it, in the order of `keys` and the dtypes of the model.

        Raises:
            RunError: An input takes text, and got numbers.
        """
        arrays = [inputs[k] if k in inputs else inputs[n] for k, n in zip(self.keys, self.names, strict=True)]
        # A column of a table, (n,), for an input that is declared as (n, 1); Keras adds the axis by itself, a signature does not.
        arrays = [
            a[:, None] if a.ndim == 1 and d.rank == 2 and d.shape is not None and d.shape[1] == 1 else a
            for a, d in zip(arrays, self.declared, strict=True)
        ]
        for array, declared in zip(arrays, self.declared, strict=True):
            if declared.dtype == TEXT and array.dtype.kind not in "OUS":
                raise RunError(
                    f"running {self.model_name} on {declared.name}: {array.dtype} {array.shape} failed: this input takes text or bytes. "
                    f"Give it text, or a model that takes numbers.{advise_signature(self.model)}"
                )
        return [a.astype(self._dtype(a, d), copy=False) for a, d in zip(arrays, self.declared, strict=True)]

    def specs(self, example: Inputs) -> tuple[TensorSpec, ...]:
        """Return the inputs as tensors: shapes as declared, else those of the example with a dynamic batch axis."""
        return tuple(
            TensorSpec(n, str(a.dtype), d.shape or (None, *a.shape[1:]))
            for n, d, a in zip(self.names, self.declared, self.arrays(example), strict=True)
        )

    def spec(self, example: Inputs) -> ModelSpec:
        """Return the spec of the model, whose output is not known yet."""
        output = TensorSpec("output", "float32", ())
        return ModelSpec(inputs=self.specs(example), output=output, name=self.model_name, framework="keras")

    def failure(self, framework: str, arrays: Sequence[Array], cause: str) -> str:
        """Return the message for a run that failed."""
        shapes = ", ".join(f"{n}: {a.dtype} {a.shape}" for n, a in zip(self.names, arrays, strict=True))
        return f"running {self.model_name} in {framework} on {shapes} failed: {cause}"

    def _count_weights(self) -> int:
        return len({id(w) for layer in layers_of(self.model) for w in layer.variables})

    def _dtype(self, array: Array, declared: Declared) -> np.dtype[Any]:
        """Return the dtype to call with: the declared one if it is of the same kind, else the float of the model."""
        # Floats become the model's, integers the declared ones; all else is left to the model.
        name, wanted = str(array.dtype), declared.dtype or ""
        if self.keeps_float64 and name == "float64" and not wanted:
            return array.dtype
        if array.dtype.kind == "f":
            name = wanted if "float" in wanted else self._float_dtype()
        elif array.dtype.kind in "iu" and wanted not in ("", TEXT) and np.dtype(_widen(wanted)).kind in "iu":
            name = wanted
        elif array.dtype.kind == "c" and "float" in wanted:
            # Keras would leave out the imaginary part.
            raise DataError(
                f"the rows are {array.dtype}, and {self.model_name} takes {wanted}. Give real and imaginary parts as columns, "
                "or the absolute values, for example with transform=abs."
            )
        return np.dtype(_widen(name))

    def _float_dtype(self) -> str:
        dtypes = (w.dtype for layer in layers_of(self.model)[:1] for w in layer.weights)
        return next((d for d in dtypes if d == "float64"), "float32")

    def _by_layer_name(self, outputs: Any) -> Any:
        """Return several outputs of a functional model by the names of their layers; anything else as it is."""
        names = getattr(self.model, "output_names", None) if is_layer(self.model) else None
        if names is None or not isinstance(outputs, list | tuple) or len(names) != len(outputs):
            return outputs
        return outputs if len(set(names)) < len(names) else dict(zip(names, outputs, strict=True))


def make_program(model: Any, keys: Sequence[str], options: ModelOptions, output: OutputOptions) -> Program:
    """Make a function of tensors of `model`, for data with these inputs.

    Raises:
        ModelError: The model cannot be used.
        RunError: It takes other inputs.
    """
    interface, model_name = interface_of(model), options.model_name or name_of(model)
    if interface is None:
        # It declares nothing, so it is called as its parameters say.
        call = plan_call(parameters_of(model), keys, takes_keywords=captured.takes_keywords(callee_of(model)))
        undeclared = tuple(Declared(n, None) for n in call.names)
        return Program(model, model_name, call.keys, undeclared, output.output_name, call.arguments)
    order = _match_inputs(interface.inputs, keys, model_name)

    def arguments(tensors: Sequence[Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        present = iter(tensors)
        return interface.arguments([None if k is None else next(present) for k in order])

    present = tuple(k for k in order if k is not None)
    declared = tuple(d for k, d in zip(order, interface.inputs, strict=True) if k is not None)
    return Program(model, model_name, present, declared, output.output_name, arguments)


def _match_inputs(inputs: Sequence[Declared], keys: Sequence[str], model_name: str) -> list[str | None]:
    """Return the data's key of each declared input, ``None`` for one left out: by name, by position, or the only one."""
    required = [i for i in inputs if not i.optional]
    if {i.name for i in required} <= set(keys) <= {i.name for i in inputs}:
        return [i.name if i.name in keys else None for i in inputs]
    numbered = all(part.isdecimal() for k in keys for part in k.split("."))
    if len(keys) == len(inputs) and (numbered or len(inputs) == 1):
        return list(keys)
    if numbered and len(keys) == len(required):
        rest = iter(keys)
        return [None if i.optional else next(rest) for i in inputs]
    # No rule fits: the message lists what the model takes.
    wanted = ", ".join(i.name + (" (optional)" if i.optional else "") for i in inputs)
    problem = (
        f"running {model_name} in Keras on {', '.join(map(repr, keys))} failed: it takes {len(inputs)} input"
        f"{'' if len(inputs) == 1 else 's'} ({wanted}), and the data have {len(keys)}"
    )
    if numbered and len(keys) < len(required):
        problem += (
            ". Give the arrays of several inputs as a tuple, in this order, or as a dict by these names: a list is one of samples, "
            "unlike in model.fit"
        )
    raise RunError(problem)


def _widen(dtype: str) -> str:
    return "float32" if dtype in HALVES else dtype
