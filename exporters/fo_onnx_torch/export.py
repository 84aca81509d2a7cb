"""torch to ONNX, by ``torch.onnx.export`` on a `FlatModule`.

That makes one form of every call (dicts, keywords, dataclasses, ModelOutputs), so that the graph has named flat inputs and a
single output.
"""

from __future__ import annotations

import logging
import re
import traceback
from pathlib import Path
from typing import Any

import torch

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import ExportError, FoOnnxError, first_line, root_cause
from fo_onnx.plugin_kit.quiet import quiet

from .modules import FlatModule, dtype_name, evaluation_mode, float32_copy, float_dtype, is_half, weight_bytes

log = logging.getLogger("fo_onnx_torch")
RAW_OUTPUT = "output"
EXTERNAL_DATA_BYTES = 2_000_000_000
"""Protobuf ends at 2 GiB; from here on the weights go into a file of their own."""
SCRIPT_OPSET = 18
"""The newest operator set of the older exporter."""

_TORCH, _OWN = (str(Path(file).parent) for file in (torch.__file__, __file__))
_GENERATED = ("<frozen ", "<string>", "<eval_with_key>")
"""Places of Python's and torch.fx's own code; that of a user may be in ``<ipython-input-…>``."""
_OPERATOR = re.compile(r"No ONNX function found for <OpOverload\(op='([^']+)'")
_QUOTED = re.compile(r'File "([^"]+)", line (\d+), in [^\n]*\n([^\n]*)')


def export(model: Any, example: Inputs, path: Path, options: ModelOptions, output: OutputOptions) -> ModelSpec:
    """Write `model` to `path`; see `fo_onnx.contracts.Exporter.export`."""
    module = FlatModule(model, example, options, output)
    if is_half(module) or float_dtype(module) == torch.float64:
        # ONNX Runtime has no bfloat16, and lacks many operators in float64, on the CPU.
        module = float32_copy(module)
    tensors = module.to_tensors(example)
    write = _export_script if isinstance(module.model, torch.jit.ScriptModule) else _export_dynamo
    with evaluation_mode(module), quiet("torch"), torch.no_grad():
        try:
            free_lengths = write(module, tensors, path, options.opset)
        except FoOnnxError:
            raise
        except Exception as err:
            # The exporter's own errors derive from torch.onnx.OnnxExporterError, and what the model's code raises while it
            # is traced comes through as it is.
            raise ExportError(
                f"torch.onnx.export cannot convert {module.model_name}: {_describe_failure(err)}"
            ) from err
        # The example again, since a model may have worked in place on the tensors.
        raw = module(*module.to_tensors(example))
    inputs = []
    for name, tensor in zip(module.call.names, tensors, strict=True):
        free = _free_axes(tensor, free_lengths)
        shape = tuple(None if i in free else d for i, d in enumerate(tensor.shape))
        inputs.append(TensorSpec(name, dtype_name(tensor), shape))
    raw_output = TensorSpec(RAW_OUTPUT, dtype_name(raw), (None, *raw.shape[1:]))
    return ModelSpec(inputs=tuple(inputs), output=raw_output, name=module.model_name, framework="torch")


# The two exporters of torch ---------------------------------------------------------------------------------------


def _export_dynamo(module: FlatModule, tensors: list[torch.Tensor], path: Path, opset: int) -> bool:
    """Write the file; return whether the lengths of token sequences are free in it."""

    def convert(free_lengths: bool) -> Any:
        return torch.onnx.export(
            module,
            tuple(tensors),
            input_names=list(module.call.names),
            output_names=[RAW_OUTPUT],
            opset_version=opset,
            dynamic_shapes=(tuple(_free_axes(t, free_lengths) for t in tensors),),
            dynamo=True,
            verbose=False,
        )

    # With free lengths of token sequences first; without them if the traced graph does not hold for others.
    free_lengths = any(map(_is_tokens, tensors))
    program = convert(free_lengths)
    if free_lengths and not _holds_for_other_lengths(module, tensors, program.exported_program.module()):
        free_lengths = False
        program = convert(free_lengths)
    _require_opset(program.model.opset_imports[""], opset)
    program.save(str(path), external_data=weight_bytes(module) > EXTERNAL_DATA_BYTES)
    # onnxscript's rules for rewriting, which are there for the whole process, refer to the last graph that they rewrote.
    for initializer in program.model.graph.initializers.values():
        initializer.const_value = None
    return free_lengths


def _export_script(module: FlatModule, tensors: list[torch.Tensor], path: Path, opset: int) -> bool:
    """Write the file of a ScriptModule, which has no Python to trace: only the older exporter reads its graph."""
    _require_opset(min(opset, SCRIPT_OPSET), opset)
    args, kwargs = module.call.arguments(tensors)
    torch.onnx.export(
        module.model,
        (*args, kwargs) if kwargs else args,
        str(path),
        input_names=list(module.call.names),
        output_names=[RAW_OUTPUT],
        opset_version=opset,
        dynamic_axes={n: {0: "batch"} for n in (*module.call.names, RAW_OUTPUT)},
        dynamo=False,
    )
    return False


def _require_opset(written: int, requested: int) -> None:
    """Raise an `ExportError` if the exporter writes another operator set, which it does without a word."""
    if written != requested:
        raise ExportError(
            f"opset={requested} was asked for, and torch.onnx.export gives {written} instead; say opset={written}."
        )


def _holds_for_other_lengths(module: FlatModule, tensors: list[torch.Tensor], traced: torch.nn.Module) -> bool:
    """Return whether the traced graph is the model for token sequences of other lengths too.

    A loop of Python over the steps is traced as so many steps, and the length stays free all the same: longer sequences
    would be cut off without a word.
    """
    for change in (lambda n: n + 1, lambda n: (n + 1) // 2):
        others = [t[:, torch.arange(change(t.shape[1])) % t.shape[1]] if _is_tokens(t) else t for t in tensors]  # type: ignore[no-untyped-call]
        try:
            expected = module(*others)
        except Exception as err:
            # The model itself does not take this length, so that nothing wrong can come of it.
            log.debug("%s takes no other lengths: %s", module.model_name, err)
            continue
        try:
            raw = traced(*others)
        except Exception as err:
            log.debug("the traced graph takes no other lengths: %s", err)
            return False
        if raw.shape != expected.shape or not torch.allclose(raw, expected, rtol=1e-3, atol=1e-4):
            return False
    return True


# Inputs and their axes --------------------------------------------------------------------------------------------


def _free_axes(tensor: torch.Tensor, free_lengths: bool) -> dict[int, Any]:
    """Return the batch axis, which is dynamic, always, and the length of token sequences if the model allows it."""
    lengths = {1: torch.export.Dim.AUTO} if free_lengths and _is_tokens(tensor) else {}
    return {0: torch.export.Dim.DYNAMIC} | lengths


def _is_tokens(tensor: torch.Tensor) -> bool:
    return tensor.ndim == 2 and not tensor.is_floating_point()


# What an error says -----------------------------------------------------------------------------------------------


def _describe_failure(err: BaseException) -> str:
    """Return what stopped the exporter, with the operator or the line of the model's code that did."""
    cause = root_cause(err)
    text = first_line(cause)
    operator = _OPERATOR.search(text)
    if operator is not None:
        return f"ONNX has no operator for {operator[1]} ({type(cause).__name__})"
    # Torch quotes the line in its message; else it is the innermost one that is neither torch's nor this package's.
    lines: list[Any] = [match.groups() for match in _QUOTED.finditer(str(cause))]
    for error in (cause, err):
        lines += [(f.filename, f.lineno, f.line) for f in reversed(traceback.extract_tb(error.__traceback__))]
    for file, number, code in lines:
        if not file.startswith((_TORCH, _OWN, *_GENERATED)):
            return f"{text}. It happened in {Path(file).name}, line {number}: {(code or '').strip()}"
    return text
