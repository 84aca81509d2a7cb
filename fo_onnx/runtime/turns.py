"""A framework's model within runs: called by one thread at a time, and never after the run's end."""

from __future__ import annotations

from typing import Any

from ..contracts.batch import Array, Inputs
from ..contracts.exporter import Devices, Exporter
from ..contracts.options import ModelOptions, OutputOptions
from ..contracts.runner import RawModel
from ..contracts.spec import ModelSpec
from ..control.run_control import current


class ModelInTurn:
    """A `RawModel` whose calls wait for their turn, and are not begun when the run is over.

    A call cannot be cut off: it is let end, and what it gives is kept.
    """

    def __init__(self, raw: RawModel, turn: Any) -> None:
        """Takes a model.

        Args:
            raw: The model; closed with this one.
            turn: Held while the model runs, by all that call the same one.
        """
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
            return self._raw.forward(inputs)

    def close(self) -> None:
        """Frees the model."""
        self._raw.close()


def open_in_turn(
    exporter: Exporter,
    model: Any,
    example: Inputs,
    device: Devices,
    model_options: ModelOptions,
    output: OutputOptions,
    turn: Any,
) -> ModelInTurn:
    """Open a model in its own framework, to be called in turn; the arguments but `turn` are those of `Exporter.native`."""
    control = current()
    with control.holding(turn, "while another call used the model"), control.calling("opening it in its framework"):
        raw = exporter.native(model, example, device, model_options, output)
    return ModelInTurn(raw, turn)
