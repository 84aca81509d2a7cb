"""OpenVINO as a path of a benchmark, as its own documentation advises for throughput: the hint, and a queue of requests.

It is no dependency of this package; the path is there if the package ``openvino`` is.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from ..contracts.batch import Inputs, cut_inputs
from ..contracts.spec import OutputKind
from ..distributions.probabilities import apply_head
from ..models.onnx_model import OnnxModel
from ..runtime.inputs import InputBinder
from .paths import BenchPath, Probs, RunningPath, RunsAll, choose_output

NAME = "openvino"
HINTS = {"PERFORMANCE_HINT": "THROUGHPUT", "INFERENCE_PRECISION_HINT": "f32"}


def openvino_path(model: OnnxModel, kind: OutputKind, temperature: float) -> BenchPath | None:
    """Return the path through OpenVINO in float32; ``None`` if it is not installed."""
    if importlib.util.find_spec(NAME) is None:
        return None
    return BenchPath(NAME, True, False, functools.partial(_open, model, kind, temperature))


@contextlib.contextmanager
def _open(model: OnnxModel, kind: OutputKind, temperature: float) -> Iterator[RunningPath]:
    yield RunningPath(open_in_openvino(model, kind, temperature, HINTS))


def open_in_openvino(model: OnnxModel, kind: OutputKind, temperature: float, hints: Mapping[str, str]) -> RunsAll:
    """Return a call that runs rows in OpenVINO, by a queue of as many requests as it wishes for with its hints.

    Args:
        model: The file.
        kind: What its output means, if it is no export of this package.
        temperature: Of the softmax.
        hints: OpenVINO's.
    """
    import openvino

    compiled = openvino.Core().compile_model(str(model.path), "CPU", dict(hints))
    output, meaning = choose_output(model, kind)
    binder = InputBinder(model.spec)

    def run(inputs: Inputs, batch_size: int | None) -> Probs:
        assert batch_size is not None
        batches = list(cut_inputs(binder.bind(inputs), batch_size))
        raw: list[Any] = [None] * len(batches)

        def collect(request: Any, index: int) -> None:
            # The request's own memory is written again by the next batch.
            raw[index] = np.array(request.get_tensor(output).data)

        queue = openvino.AsyncInferQueue(compiled)
        queue.set_callback(collect)
        for index, batch in enumerate(batches):
            queue.start_async(batch, index)
        queue.wait_all()
        return apply_head(np.concatenate(raw), meaning, temperature)[0].astype(np.float32, copy=False)

    return run
