"""Keras on a backend without graphs, such as numpy: run as it is."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from fo_onnx.errors import DeviceError, FoOnnxError, RunError
from fo_onnx.protocols import Devices, Inputs
from fo_onnx.spec import ModelSpec

from .failures import first_cause
from .precision import bookkeeping_kept, computing_in_float32
from .programs import Program


class EagerModel:
    """A Keras model, called layer by layer."""

    device = "cpu"

    def __init__(self, run: Program, spec: ModelSpec, device: Devices) -> None:
        """Takes a model.

        Raises:
            DeviceError: Another device than the CPU was asked for.
        """
        backend = keras.config.backend()
        if device not in ("auto", "cpu"):
            raise DeviceError(f"device={device!r} was asked for, but the {backend} backend of Keras has only cpu.")
        self.spec = spec
        self.original: None = None
        self._program, self._backend = run, backend

    def forward(self, inputs: Inputs) -> NDArray[Any]:
        """The raw output (n, …) in evaluation mode.

        Raises:
            RunError: The model refuses the inputs.
            OutputError: It gives no tensor.
        """
        run = self._program
        arrays = run.arrays(inputs)
        try:
            with bookkeeping_kept(run.model), computing_in_float32(run.model), keras.StatelessScope():
                found = run([keras.ops.convert_to_tensor(a) for a in arrays], keras.ops.is_tensor)
        except FoOnnxError:
            raise
        except Exception as err:
            shapes = ", ".join(f"{n}: {a.dtype} {a.shape}" for n, a in zip(run.names, arrays, strict=True))
            raise RunError(f"running {run.who} in {self._backend} on {shapes} failed: {first_cause(err)}") from err
        return np.asarray(keras.ops.convert_to_numpy(found))

    def close(self) -> None:
        """Nothing to free."""
