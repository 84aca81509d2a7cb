"""torch to ONNX, by ``torch.onnx.export`` on a wrapper that flattens inputs and picks the output.

The wrapper makes one form of every call (dicts, keywords, dataclasses, ModelOutputs), so that the graph has named flat
inputs and a single output.
"""

from __future__ import annotations

import logging
import re
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from fo_onnx.calls import Call, pick_output
from fo_onnx.errors import ExportError, OutputError
from fo_onnx.options import ModelOptions, OutputOptions
from fo_onnx.protocols import Inputs
from fo_onnx.quiet import quiet
from fo_onnx.spec import ModelSpec, TensorSpec

from .modules import as_module, device_of, evaluation_mode, float32_copy, float_dtype, is_half, weight_bytes
from .signatures import call_of
from .tensors import to_tensor

log = logging.getLogger("fo_onnx_torch")
RAW_OUTPUT = "output"
EXTERNAL_DATA_BYTES = 2_000_000_000
"""Protobuf ends at 2 GiB; from here on the weights go into a file beside the model."""

_TORCH = str(Path(torch.__file__).parent)
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")
_QUOTED = re.compile(r'File "([^"]+)", line (\d+), in [^\n]*\n([^\n]*)')


class Flat(torch.nn.Module):
    """A module with flat tensors in and the one tensor with class scores out."""

    def __init__(self, model: torch.nn.Module, call: Call, output_name: str | None, who: str) -> None:
        super().__init__()
        self.model = model
        self._call, self._output_name, self._who = call, output_name, who

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """The raw output (n, …)."""
        args, kwargs = self._call.arguments(tensors)
        found: torch.Tensor = pick_output(self.model(*args, **kwargs), self._output_name, self._who, torch.is_tensor)
        return found


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Writes `model` to `path`; see `fo_onnx.protocols.Exporter.export`."""
    module = as_module(model)
    who = options.model_name or type(module).__name__
    call = call_of(model, list(example))
    if is_half(module) or float_dtype(module) == torch.float64:
        # ONNX Runtime has no bfloat16, and lacks many operators in float64, on the CPU.
        module = float32_copy(module)
    tensors = example_tensors(module, example)
    flat = Flat(module, call, output.output_name, who)
    external = weight_bytes(module) > EXTERNAL_DATA_BYTES
    legacy = isinstance(module, torch.jit.ScriptModule)
    with evaluation_mode(module), quiet("torch"), torch.no_grad():
        try:
            write = _export_script if legacy else _export_dynamo
            free = write(flat, tensors, call, path, options.opset, external)
        except OutputError:
            raise
        except Exception as err:
            # The exporter's own errors derive from torch.onnx.OnnxExporterError, and what the model's code raises while it
            # is traced comes through as it is.
            raise ExportError(f"torch.onnx.export cannot convert {who}: {_root_cause(err)}") from err
    _require_opset(path, options.opset)
    inputs = tuple(_spec(n, t, free) for n, t in zip(call.names, tensors, strict=True))
    with evaluation_mode(module), torch.no_grad():
        raw = flat(*example_tensors(module, example))
    return ModelSpec(
        inputs=inputs, output=TensorSpec(RAW_OUTPUT, str(raw.dtype).removeprefix("torch."), (None, *raw.shape[1:])), name=who,
        framework="torch",
    )  # fmt: skip


def _require_opset(path: Path, asked: int) -> None:
    """Raises an `ExportError` where the exporter settled for another operator set, which it does without a word."""
    import onnx

    model = onnx.load_model(path, load_external_data=False)
    found = next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx"))
    if found != asked:
        raise ExportError(
            f"opset={asked} was asked for, and torch.onnx.export gives {found} instead; say opset={found}."
        )


def example_tensors(module: torch.nn.Module, example: Inputs) -> list[torch.Tensor]:
    """The example as tensors where the module is, floats in its own floating-point dtype."""
    dtype, device = float_dtype(module), device_of(module)
    tensors = [to_tensor(a, device) for a in example.values()]
    # A copy, always: the tensors share the caller's memory, and a model may work in place.
    return [t.to(dtype if t.is_floating_point() else t.dtype, copy=True) for t in tensors]


def _export_dynamo(flat: Flat, tensors: list[torch.Tensor], call: Call, path: Path, opset: int, external: bool) -> bool:
    """Writes the file; whether the lengths of token sequences are free in it."""

    def exported(axes: Callable[[torch.Tensor], dict[int, Any]]) -> Any:
        return torch.onnx.export(
            flat,
            tuple(tensors),
            str(path),
            input_names=list(call.names),
            output_names=[RAW_OUTPUT],
            opset_version=opset,
            dynamic_shapes=(tuple(axes(t) for t in tensors),),
            external_data=external,
            dynamo=True,
            verbose=False,
        )

    free = any(map(_is_tokens, tensors))
    program = exported(_dynamic_axes)
    if free and not _holds_for_other_lengths(flat, tensors, program.exported_program.module()):
        exported(_batch_axis)
        return False
    return free


def _holds_for_other_lengths(flat: Flat, tensors: list[torch.Tensor], traced: torch.nn.Module) -> bool:
    """Whether what was traced is the model for token sequences of other lengths too.

    A loop of Python over the steps is traced as so many steps, and the length stays free all the same: longer sequences
    would be cut off without a word.
    """
    for change in (lambda n: n + 1, lambda n: (n + 1) // 2):
        others = [t[:, torch.arange(change(t.shape[1])) % t.shape[1]] if _is_tokens(t) else t for t in tensors]  # type: ignore[no-untyped-call]
        try:
            expected = flat(*others)
        except Exception as err:
            # The model itself does not take this length, so that nothing wrong can come of it.
            log.debug("%s takes no other lengths: %s", type(flat.model).__name__, err)
            continue
        try:
            found = traced(*others)
        except Exception as err:
            log.debug("what was traced takes no other lengths: %s", err)
            return False
        if found.shape != expected.shape or not torch.allclose(found, expected, rtol=1e-3, atol=1e-4):
            return False
    return True


def _export_script(flat: Flat, tensors: list[torch.Tensor], call: Call, path: Path, opset: int, external: bool) -> bool:
    # ScriptModules have no Python to trace; only the older exporter reads their graph.
    args, kwargs = call.arguments(tensors)
    torch.onnx.export(
        flat.model,
        (*args, kwargs) if kwargs else args,
        str(path),
        input_names=list(call.names),
        output_names=[RAW_OUTPUT],
        opset_version=min(opset, 18),
        dynamic_axes={n: {0: "batch"} for n in (*call.names, RAW_OUTPUT)},
        dynamo=False,
    )
    return False


def _batch_axis(tensor: torch.Tensor) -> dict[int, Any]:
    """The batch axis is dynamic, always."""
    return {0: torch.export.Dim.DYNAMIC}


def _dynamic_axes(tensor: torch.Tensor) -> dict[int, Any]:
    """The batch axis, and the length of token sequences where the model allows it."""
    return _batch_axis(tensor) | ({1: torch.export.Dim.AUTO} if _is_tokens(tensor) else {})


def _is_tokens(tensor: torch.Tensor) -> bool:
    return tensor.ndim == 2 and not tensor.is_floating_point()


def _spec(name: str, tensor: torch.Tensor, free_lengths: bool) -> TensorSpec:
    free = (_dynamic_axes if free_lengths else _batch_axis)(tensor)
    shape = tuple(None if i in free else d for i, d in enumerate(tensor.shape))
    return TensorSpec(name, str(tensor.dtype).removeprefix("torch."), shape)


def _root_cause(err: BaseException) -> str:
    """What stopped the exporter, with the operator or the line of the model's code that did."""
    first = err
    while err.__cause__ is not None:
        err = err.__cause__
    lines = [line.strip() for line in str(err).splitlines() if line.strip()] or ["no message"]
    # A line that ends in a colon says nothing without the next.
    text = " ".join(lines[:2]) if lines[0].endswith(":") else lines[0]
    operator = _OPERATOR.search(text)
    if operator is not None:
        return f"ONNX has no operator for {operator[1]} ({type(err).__name__})"
    where = _line_in_text(str(err)) or _line_in_trace(err) or _line_in_trace(first)
    return f"{type(err).__name__}: {text.rstrip('.')}{f'. It happened in {where}' if where else ''}"


def _line_in_text(text: str) -> str | None:
    """The line of the model's code that torch quotes in its message."""
    for match in _QUOTED.finditer(text):
        if not match[1].startswith(_TORCH):
            return f"{Path(match[1]).name}, line {match[2]}: {match[3].strip()}"
    return None


def _line_in_trace(err: BaseException) -> str | None:
    """The innermost line that is neither torch's nor this package's."""
    ours = str(Path(__file__).parent)
    for frame in reversed(traceback.extract_tb(err.__traceback__)):
        if not frame.filename.startswith((_TORCH, ours, "<")):
            return f"{Path(frame.filename).name}, line {frame.lineno}: {frame.line}"
    return None
