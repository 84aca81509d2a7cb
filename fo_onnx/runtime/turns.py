"""A framework's model within runs: called by one thread at a time, and never after the run's end."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

from ..contracts.batch import Array, Inputs, count_rows, restore_batch_axis
from ..contracts.exporter import Devices
from ..contracts.runner import RawModel, one_thread
from ..contracts.spec import ModelSpec
from ..control.run_control import current
from .request import RunRequest


class ModelInTurn:
    """A `RawModel` whose calls wait for their turn, and are not begun when the run is over.

    A call cannot be cut off: it is let end, and what it gives is kept.
    """

    def __init__(self, raw: RawModel, turn: Any) -> None:
        """Take a model, which is closed with this one, and the lock that all hold who call the same one."""
        self._raw, self._turn = raw, turn
        self.spec: ModelSpec = raw.spec
        self.device: str = raw.device

    @property
    def original(self) -> RawModel | None:
        """See `fo_onnx.contracts.RawModel`."""
        original = self._raw.original
        return None if original is None else ModelInTurn(original, self._turn)

    def forward(self, inputs: Inputs) -> Array:
        """See `fo_onnx.contracts.RawModel`.

        Raises:
            RunEnded: The run that this is called for is over.
        """
        control = current()
        with control.holding(self._turn, "while another call used the model"), control.calling("the model's own call"):
            return restore_batch_axis(self._raw.forward(inputs), count_rows(inputs))

    def one_thread(self) -> AbstractContextManager[None]:
        """See `fo_onnx.contracts.LimitsThreads`."""
        return one_thread(self._raw)

    def close(self) -> None:
        """Free the model."""
        self._raw.close()


def open_native_model(request: RunRequest, device: Devices = "auto") -> RawModel:
    """Open the requested model in its own framework, to be called in turn."""
    assert request.plugin is not None
    control = current()
    with (
        control.holding(request.turn, "while another call used the model"),
        control.calling("opening it in its framework"),
    ):
        raw = request.plugin.native(request.model, request.example, device, request.model_options, request.output)
    return ModelInTurn(raw, request.turn)
