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

from .devices import devices_of, home_of, require_devices, strategy_of, tf_device
from .failures import first_cause
from .precision import bookkeeping_kept, computing_in_float32, is_half, retraced
from .programs import Program, program


class TensorFlowModel:
    """A model with arrays in and an array out, run as a graph; eagerly where it cannot be traced.

    The graph is traced with dynamic sizes, once per rank and dtype. XLA is left off: it compiles anew for every size of
    batch, the last one of each run included, which takes longer than what it saves on most models. A ``tf.function`` with
    ``jit_compile=True`` is compiled all the same.

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
                found = self._spread(arrays) if self._strategy is not None else self._whole(arrays)
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

    def _whole(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        tensors = [tf.convert_to_tensor(a) for a in arrays]
        if self._eager:
            return to_numpy(self._flat(*tensors))
        try:
            return to_numpy(self._graph(*tensors))
        except FoOnnxError:
            raise
        except Exception:
            # Python that needs values cannot be traced. What fails eagerly too, fails with the clearer message.
            if self._ran:
                raise
            found = to_numpy(self._flat(*tensors))
            self._eager = True
            return found

    def _spread(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        """Runs equal, consecutive parts of a batch on the replicas; what is missing is filled up with the last row."""
        strategy, rows = self._strategy, len(arrays[0])
        size = -(-rows // strategy.num_replicas_in_sync)
        missing = size * strategy.num_replicas_in_sync - rows
        padded = [np.concatenate([a, np.repeat(a[-1:], missing, axis=0)]) if missing else a for a in arrays]

        def share(array: NDArray[Any]) -> Any:
            def of_replica(context: Any) -> Any:
                start = context.replica_id_in_sync_group * size
                return tf.convert_to_tensor(array[start : start + size])

            return strategy.experimental_distribute_values_from_function(of_replica)

        parts = strategy.experimental_local_results(self._graph(*map(share, padded)))
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
