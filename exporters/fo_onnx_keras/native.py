"""Models in TensorFlow: the reference of every comparison, and the runner where ONNX cannot stand in."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from fo_onnx.errors import FoOnnxError, RunError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Devices, Inputs
from fo_onnx.spec import ModelSpec

from .devices import devices_of, home_of, require_devices, strategy_of, tf_device, tf_variables
from .failures import first_cause
from .precision import bookkeeping_kept, computing_in_float32, is_half, retraced
from .programs import Program, program
from .variables import RandomStates, alike, assigned_by, copies_of, differing, kept


class TensorFlowModel:
    """A model with arrays in and an array out, run as a graph; eagerly where it cannot be traced.

    The graph is traced for the first sizes, and once more with dynamic ones where others come. XLA is left off: it compiles anew
    for every size of batch, the last one of each run included, which takes longer than what it saves on most models. A
    ``tf.function`` with ``jit_compile=True`` is compiled all the same.

    Attributes:
        spec: The model.
        device: Where it runs; several devices are joined by commas.
        original: The model in its own precision, where this is computed in float32 instead.
    """

    def __init__(
        self, run: Program, spec: ModelSpec, device: str, *, place: str | None, strategy: Any, lifted: bool
    ) -> None:
        """Takes a model.

        Args:
            run: The model as a function.
            spec: Its spec.
            device: Where it runs, by our name.
            place: The same by TensorFlow's, or ``None`` to leave it where it is.
            strategy: Spreads batches over its replicas, where given.
            lifted: Whether layers of half precision compute in float32.
        """
        self.spec, self.device = spec, device
        self.original: TensorFlowModel | None = None
        self._program: Program | None = run
        self._place, self._strategy, self._lifted = place, strategy, lifted
        # Autograph would see this package's code and not Keras'; a tf.function of the user's own keeps its own.
        self._target = retraced(run.model) if lifted else None
        self._graph: Any = tf.function(self._on_replicas, autograph=False, reduce_retracing=True)
        self._steps: dict[Any, tuple[Any, tuple[Any, ...]]] = {}
        self._states: RandomStates = {}
        self._differing = () if strategy is None else differing(run.model)
        self._eager = False
        self._ran = False

    def forward(self, inputs: Inputs) -> NDArray[Any]:
        """The raw output (n, …) in evaluation mode.

        Raises:
            RunError: The model refuses the inputs.
            OutputError: It gives no tensor.
        """
        run = self._open()
        arrays = run.arrays(inputs)
        try:
            with self._context(run):
                found = self._in_parts(arrays, run.fixed_rows)
        except FoOnnxError:
            raise
        except Exception as err:
            shapes = ", ".join(f"{n}: {a.dtype} {a.shape}" for n, a in zip(run.names, arrays, strict=True))
            raise RunError(f"running {run.who} in TensorFlow on {shapes} failed: {first_cause(err)}") from err
        self._ran = True
        return found

    def close(self) -> None:
        """Lets the model and its graphs go."""
        self._program = self._graph = self._target = None
        self._steps.clear()
        self._differing = ()

    def _open(self) -> Program:
        if self._program is None:
            raise RunError(f"running {self.spec.name}: it was closed.")
        return self._program

    @contextlib.contextmanager
    def _context(self, run: Program) -> Any:
        with contextlib.ExitStack() as stack:
            if run.layers:
                stack.enter_context(run.no_new_weights())
                stack.enter_context(bookkeeping_kept(run.model))
                if self._lifted:
                    stack.enter_context(computing_in_float32(run.model))
            if self._place is not None:
                stack.enter_context(tf.device(self._place))
            yield

    def _in_parts(self, arrays: Sequence[NDArray[Any]], size: int | None) -> NDArray[Any]:
        """Runs a batch; of a model for `size` rows at a time in such parts, the last one filled up with the last row."""
        # TensorFlow's optimizer joins matmul, bias and relu in a kernel that makes 0 of NaN (2.21); one by one they hand it on.
        nan = any(a.dtype.kind == "f" and np.isnan(a).any() for a in arrays)
        run = self._one_by_one if nan else self._whole if self._strategy is None else self._spread
        if size is None:
            return run(arrays)
        size, rows = size * (1 if self._strategy is None else self._strategy.num_replicas_in_sync), len(arrays[0])
        padded = [_filled_up(a, -(-rows // size) * size) for a in arrays]
        parts = [run([a[start : start + size] for a in padded]) for start in range(0, rows, size)]
        return np.concatenate(parts)[:rows]

    def _whole(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        if self._eager:
            return self._one_by_one(arrays)
        tensors = [tf.convert_to_tensor(a) for a in arrays]
        try:
            return to_numpy(self._step(arrays, tensors))
        except FoOnnxError:
            raise
        except Exception:
            # Python that needs values cannot be traced. What fails eagerly too, fails with the clearer message.
            if self._ran:
                raise
            found = self._eagerly(tensors)
            self._eager = True
            return found

    def _one_by_one(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return self._eagerly([tf.convert_to_tensor(a) for a in arrays])

    def _eagerly(self, tensors: Sequence[Any]) -> NDArray[Any]:
        with kept(copies_of(list(tf_variables(self._open().model))), self._states):
            return to_numpy(self._flat(*tensors))

    def _step(self, arrays: Sequence[NDArray[Any]], given: Sequence[Any]) -> Any:
        """Runs the graph for arrays of these shapes on what is given for them."""
        key = tuple((a.shape, a.dtype) for a in arrays)
        if key not in self._steps:
            # Not by a call, after which TensorFlow warns of functions that are traced often, whichever models they are of.
            step = self._graph.get_concrete_function(*given)
            self._steps[key] = step, assigned_by(step, self._open().model)
        step, variables = self._steps[key]
        with kept(variables, self._states):
            return step(*given)

    def _spread(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Runs equal, consecutive parts of a batch on the replicas; what is missing is filled up with the last row."""
        strategy, rows = self._strategy, len(arrays[0])
        size = -(-rows // strategy.num_replicas_in_sync)
        padded = [_filled_up(a, size * strategy.num_replicas_in_sync) for a in arrays]

        def share(array: NDArray[Any]) -> Any:
            def of_replica(context: Any) -> Any:
                start = context.replica_id_in_sync_group * size
                return tf.convert_to_tensor(array[start : start + size])

            return strategy.experimental_distribute_values_from_function(of_replica)

        with alike(self._differing):
            parts = strategy.experimental_local_results(self._step(padded, [share(a) for a in padded]))
        return np.concatenate([to_numpy(p) for p in parts])[:rows]

    def _on_replicas(self, *tensors: Any) -> Any:
        return self._flat(*tensors) if self._strategy is None else self._strategy.run(self._flat, tensors)

    def _flat(self, *tensors: Any) -> Any:
        return self._open()(tensors, is_tensor, self._target)


def is_tensor(value: Any) -> bool:
    """Whether a value is a dense tensor."""
    return isinstance(value, tf.Tensor)


def to_numpy(tensor: Any) -> NDArray[Any]:
    """A dense tensor as an array; bfloat16 and the 8-bit floats become float32, which numpy has."""
    if tensor.dtype.is_floating and tensor.dtype not in (tf.float16, tf.float32, tf.float64):
        tensor = tf.cast(tensor, tf.float32)
    found: NDArray[Any] = np.asarray(tensor.numpy())
    return found


def _filled_up(array: NDArray[Any], rows: int) -> NDArray[Any]:
    missing = rows - len(array)
    return np.concatenate([array, np.repeat(array[-1:], missing, axis=0)]) if missing else array


def open_native(
    model: Any, example: Inputs, device: Devices, options: ModelOptions, output: OutputOptions
) -> TensorFlowModel:
    """`model` as a `TensorFlowModel` in float32; see `fo_onnx.protocols.Exporter.native`.

    A model that was made in a strategy's scope runs on its replicas, unless one device is asked for. Weights on another
    device are copied to it as they are read, and stay where they are.
    """
    run = program(model, list(example), options, output)
    strategy = strategy_of(model)
    require_devices(strategy, device, run.who)
    place = None
    if isinstance(device, str) and device != "auto":
        strategy, place = None, tf_device(device)
    name = str(device) if place is not None else ",".join(devices_of(strategy)) if strategy else home_of(model)

    def opened(lifted: bool) -> TensorFlowModel:
        return TensorFlowModel(run, run.spec(example), name, place=place, strategy=strategy, lifted=lifted)

    if not is_half(model):
        return opened(lifted=False)
    found = opened(lifted=True)
    found.original = opened(lifted=False)
    return found
