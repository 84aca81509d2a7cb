"""Models in TensorFlow: the reference of every comparison, and the runner where ONNX cannot stand in."""

from __future__ import annotations

import contextlib
import functools
import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import tensorflow as tf
from fo_onnx_tensorflow.gradients import forget_gradients

from fo_onnx.contracts.batch import Array, Inputs, pad_rows
from fo_onnx.contracts.exporter import Devices
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.runner import RawModel
from fo_onnx.contracts.spec import ModelSpec
from fo_onnx.errors import FoOnnxError, ModelError, RunError

from .detect import is_layer, is_legacy_layer
from .devices import devices_of, home_of, require_devices, strategy_of, tf_device, tf_variables
from .messages import first_cause
from .precision import guard_layers, is_half, retrace
from .program import Program, make_program
from .variables import RandomStates, assigned_by, copies_of, differing_variables, restore_variables

log = logging.getLogger("fo_onnx_keras")


class TensorFlowModel:
    """A model with arrays in and an array out, run as a graph; eagerly where it cannot be traced.

    The graph is traced for the first sizes, and once more with dynamic ones where others come. XLA is left off: it
    compiles anew for every size of batch, the last one of each run included, which takes longer than what it saves on
    most models. A ``tf.function`` with ``jit_compile=True`` is compiled all the same.

    Attributes:
        spec: The model.
        device: Where it runs; several devices are joined by commas.
        original: The model in its own precision, where this is computed in float32 instead.
    """

    def __init__(
        self, program: Program, spec: ModelSpec, device: str, *, place: str | None, strategy: Any, in_float32: bool
    ) -> None:
        """Take a model.

        Args:
            program: The model as a function.
            spec: Its spec.
            device: Where it runs, by our name.
            place: The same by TensorFlow's, or ``None`` to leave it where it is.
            strategy: Spreads batches over its replicas; ``None`` for one device.
            in_float32: Whether layers of half precision compute in float32.
        """
        self.spec, self.device = spec, device
        self.original: TensorFlowModel | None = None
        self._program: Program | None = program
        self._place, self._strategy, self._in_float32 = place, strategy, in_float32
        self._replicas = 1 if strategy is None else strategy.num_replicas_in_sync
        # Autograph would see this package's code and not Keras'; a tf.function of the user's own keeps its own.
        self._target = retrace(program.model) if in_float32 else None
        self._graph: Any = tf.function(self._call_on_replicas, autograph=False, reduce_retracing=True)
        self._steps: dict[Any, tuple[Any, tuple[Any, ...]]] = {}
        self._states: RandomStates = {}
        self._differing = () if strategy is None else differing_variables(program.model)
        self._eager = False
        self._has_run = False

    def forward(self, inputs: Inputs) -> Array:
        """Return the raw output (n, …) in evaluation mode. Raises `RunError` if the model refuses the inputs."""
        program = self._open_program()
        arrays = program.arrays(inputs)
        try:
            # A model that is asked for nothing stays where it is.
            place = tf.device(self._place) if self._place is not None else contextlib.nullcontext()
            with program.no_new_weights(), guard_layers(program.model, in_float32=self._in_float32), place:
                output = self._run_parts(arrays, program.fixed_rows)
        except FoOnnxError:
            raise
        except Exception as err:
            raise RunError(program.failure("TensorFlow", arrays, first_cause(err))) from err
        self._has_run = True
        return output

    def close(self) -> None:
        """Let the model and its graphs go."""
        self._program = self._graph = self._target = None
        self._steps.clear()
        self._differing = ()

    def _open_program(self) -> Program:
        if self._program is None:
            raise RunError(f"running {self.spec.name}: it was closed.")
        return self._program

    def _run_parts(self, arrays: Sequence[Array], size: int | None) -> Array:
        """Run a batch; of a model for `size` rows at a time in such parts, the last one filled up with the last row."""
        # TensorFlow's optimizer joins matmul, bias and relu in a kernel that makes 0 of NaN (2.21); eagerly it stays.
        nan = any(a.dtype.kind == "f" and np.isnan(a).any() for a in arrays)
        run = self._run_eagerly if nan else self._run_graph if self._strategy is None else self._run_replicas
        if size is None:
            return run(arrays)
        # A signature for a number of rows holds on each replica.
        size, rows = size * self._replicas, len(arrays[0])
        padded = [pad_rows(a, -(-rows // size) * size) for a in arrays]
        parts = [run([a[start : start + size] for a in padded]) for start in range(0, rows, size)]
        return np.concatenate(parts)[:rows]

    def _run_graph(self, arrays: Sequence[Array]) -> Array:
        if self._eager:
            return self._run_eagerly(arrays)
        try:
            return to_numpy(self._run_step(arrays, [tf.convert_to_tensor(a) for a in arrays]))
        except FoOnnxError:
            raise
        except Exception:
            # Python that needs values cannot be traced. What fails eagerly too, fails with the clearer message.
            if self._has_run:
                raise
            output = self._run_eagerly(arrays)
            self._eager = True
            return output

    def _run_eagerly(self, arrays: Sequence[Array]) -> Array:
        with restore_variables(copies_of(list(tf_variables(self._open_program().model))), self._states):
            return to_numpy(self._call_flat(*(tf.convert_to_tensor(a) for a in arrays)))

    def _run_step(self, arrays: Sequence[Array], values: Sequence[Any]) -> Any:
        """Run the graph for arrays of these shapes on their values: tensors, or one for each replica."""
        key = tuple((a.shape, a.dtype) for a in arrays)
        if key not in self._steps:
            # Not by a call, after which TensorFlow warns of functions that are traced often, of whichever model.
            step = self._graph.get_concrete_function(*values)
            forget_gradients(step.graph)
            self._steps[key] = step, assigned_by(step, self._open_program().model)
        step, variables = self._steps[key]
        with restore_variables(variables, self._states, self._differing):
            return step(*values)

    def _run_replicas(self, arrays: Sequence[Array]) -> Array:
        """Run equal, consecutive parts of a batch on the replicas, the last one filled up with the last row."""
        strategy, rows = self._strategy, len(arrays[0])
        size = -(-rows // self._replicas)
        padded = [pad_rows(a, size * self._replicas) for a in arrays]

        def share(array: Array) -> Any:
            parts = [tf.convert_to_tensor(part) for part in np.split(array, self._replicas)]
            return strategy.experimental_distribute_values_from_function(lambda c: parts[c.replica_id_in_sync_group])

        results = strategy.experimental_local_results(self._run_step(padded, [share(a) for a in padded]))
        return np.concatenate([to_numpy(r) for r in results])[:rows]

    def _call_on_replicas(self, *tensors: Any) -> Any:
        return self._call_flat(*tensors) if self._strategy is None else self._strategy.run(self._call_flat, tensors)

    def _call_flat(self, *tensors: Any) -> Any:
        return self._open_program()(tensors, is_tensor, self._target)


def is_tensor(value: Any) -> bool:
    """Return whether a value is a dense tensor."""
    return isinstance(value, tf.Tensor)


def to_numpy(tensor: Any) -> Array:
    """Return a dense tensor as an array; bfloat16 and the 8-bit floats become float32, which numpy has."""
    if tensor.dtype.is_floating and tensor.dtype not in (tf.float16, tf.float32, tf.float64):
        tensor = tf.cast(tensor, tf.float32)
    array: Array = np.asarray(tensor.numpy())
    return array


def settle_floats(program: Program, example: Inputs) -> Program:
    """Return the program for rows of float64 as they are, if the model takes them so; a layer of Keras casts them by itself.

    Rounded to float32, seconds since 1970 are up to a minute off.
    """
    undeclared = [k for k, d in zip(program.keys, program.declared, strict=True) if d.dtype is None]
    if (
        is_layer(program.model)
        or is_legacy_layer(program.model)
        or all(example[k].dtype != np.float64 for k in undeclared)
    ):
        return program
    as_given = replace(program, keeps_float64=True)
    rows = [tf.convert_to_tensor(a[:2]) for a in as_given.arrays(example)]
    try:
        with program.no_new_weights(), restore_variables(copies_of(list(tf_variables(program.model))), {}):
            as_given(rows, is_tensor)
    except ModelError:  # of layers that were built only now
        raise
    except Exception as err:
        log.debug("%s takes no float64: %s", program.model_name, first_cause(err))
        return program
    return as_given


def open_native(model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions) -> RawModel:
    """Open `model` as a `TensorFlowModel` in float32; see `fo_onnx.contracts.Exporter.native`.

    A model that was made in a strategy's scope runs on its replicas, unless one device is asked for. Weights on another
    device are copied to it as they are read, and stay where they are.
    """
    program = settle_floats(make_program(model, list(example), options, output), example)
    # Where it runs: on one device that is asked for, on the replicas of its strategy, or where its weights are.
    strategy = strategy_of(model)
    require_devices(strategy, device, program.model_name)
    place = None
    if isinstance(device, str) and device != "auto":
        strategy, place = None, tf_device(device)
    name = str(device) if place is not None else ",".join(devices_of(strategy)) if strategy else home_of(model)

    # The reference of a model in half precision is its float32 form; the original is compared, too.
    open_model = functools.partial(
        TensorFlowModel, program, program.spec(example), name, place=place, strategy=strategy
    )
    half = is_half(model)
    opened = open_model(in_float32=half)
    opened.original = open_model(in_float32=False) if half else None
    return opened
