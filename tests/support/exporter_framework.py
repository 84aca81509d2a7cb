"""What a framework gives to join the exporter contract."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fo_onnx.contracts.exporter import Exporter


@dataclass(frozen=True)
class ExportCase:
    """A model and rows for it.

    Attributes:
        make: Makes the model, with the same weights every time; best in a state that an export could change.
        inputs: Rows, by name or by position.
    """

    make: Callable[[], Any]
    inputs: dict[str, np.ndarray]


@dataclass(frozen=True)
class Framework:
    """The fixtures of one framework.

    Attributes:
        exporter: Its exporter.
        module: The module that must not be imported before one of its models is there.
        cases: Models that can be exported, by name.
        unexportable: One that cannot.
        named_in_the_error: What the error must name: the operator, the line or the model.
        wrong_shape: Rows that the model of `unexportable` does not take.
        answer: The framework's own raw output (n, k) of a model in evaluation mode, float64.
        snapshot: Everything of a model that must stay as it is, as something comparable.
        change_one_weight: Changes a model a little.
        native_paths: Names of the ways that it offers for a benchmark.
        remade: A line of Python that defines ``make`` of the first case in a fresh process.
    """

    exporter: Exporter
    module: str
    cases: dict[str, ExportCase]
    unexportable: ExportCase
    named_in_the_error: str
    wrong_shape: dict[str, np.ndarray]
    answer: Callable[[Any, dict[str, np.ndarray]], np.ndarray]
    snapshot: Callable[[Any], Any]
    change_one_weight: Callable[[Any], None]
    native_paths: list[str]
    remade: str
