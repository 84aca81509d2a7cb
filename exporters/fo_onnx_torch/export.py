"""torch to ONNX, by ``torch.onnx.export`` on a `FlatModule`.

That makes one form of every call (dicts, keywords, dataclasses, ModelOutputs), so that the graph has named flat inputs and a
single output.
"""

from __future__ import annotations

import contextlib
import io
import logging
import re
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from fo_onnx.contracts.batch import Inputs
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.contracts.spec import ModelSpec, TensorSpec
from fo_onnx.errors import ExportError, FoOnnxError, first_line, root_cause
from fo_onnx.plugin_kit.quiet import quiet

from .attention import TRANSLATIONS
from .evaluation import evaluation_mode
from .exact_rules import exact_rules
from .experts import all_experts
from .lengths import Axes, find_lengths, hold_for_other_lengths
from .modules import FlatModule, fill_rows, weight_bytes
from .precision import choose_dtypes, dtype_name, float32_copy, float_dtype, is_half

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
    dtypes = choose_dtypes(module, example)
    if any(d.is_complex for d in dtypes):
        raise ExportError(f"{module.model_name} takes complex numbers, which ONNX Runtime has not.")
    rows = module.fixed_rows
    tensors = module.to_tensors(example, dtypes)
    if rows is not None:
        tensors = [fill_rows(t[:rows], rows) for t in tensors]
    write = _export_script if isinstance(module.model, torch.jit.ScriptModule) else _export_dynamo
    # Until the file is written: its weights are the module's own memory, and the way back to training may change them.
    with quiet("torch"), evaluation_mode(module.model):
        try:
            # Tracing would not see that the model does not run. The tensors are others: it may work in place on them.
            raw = module.run(module.to_tensors(example, dtypes))
            if module.keeper.replaces_memory:
                # torch 2.13 ends the process when it decomposes such a graph.
                raise ExportError(
                    f"{module.model_name} replaces the memory of its weights or buffers when it is called "
                    "(weight.data = …), which torch.onnx.export does not trace. Clip the weights after each step of "
                    "training instead."
                )
            free = write(module, tensors, path, options.opset)
        except FoOnnxError:
            raise
        except Exception as err:
            # The exporter's own errors derive from torch.onnx.OnnxExporterError, and what the model's code raises while it
            # is traced comes through as it is.
            raise ExportError(
                f"torch.onnx.export cannot convert {module.model_name}: {_describe_failure(err)}"
            ) from err
    inputs = []
    for name, tensor, axes in zip(module.call.names, tensors, free, strict=True):
        shape = (rows, *(None if i in axes else d for i, d in enumerate(tensor.shape) if i))
        inputs.append(TensorSpec(name, dtype_name(tensor.dtype), shape))
    raw_output = TensorSpec(RAW_OUTPUT, dtype_name(raw.dtype), (rows, *raw.shape[1:]))
    return ModelSpec(inputs=tuple(inputs), output=raw_output, name=module.model_name, framework="torch")


# The two exporters of torch ---------------------------------------------------------------------------------------


def _export_dynamo(module: FlatModule, tensors: list[torch.Tensor], path: Path, opset: int) -> list[Axes]:
    """Write the file; return the axes of each input, besides the batch, that are free in it."""

    def convert(free: list[Axes]) -> Any:
        auto = torch.export.Dim.AUTO
        batch = {0: torch.export.Dim.DYNAMIC} if module.fixed_rows is None else {}
        shapes = tuple(batch | dict.fromkeys(axes, auto) for axes in free)
        # What is put back includes what was traced, and not computed: a table that the model keeps of its first call.
        with module.left_as_found(), all_experts(module), exact_rules():
            return torch.onnx.export(
                module,
                tuple(tensors),
                input_names=list(module.call.names),
                output_names=[RAW_OUTPUT],
                opset_version=opset,
                dynamic_shapes=(shapes,),
                custom_translation_table=TRANSLATIONS,
                dynamo=True,
                verbose=False,
            )

    # With free lengths of token sequences first; without them if the traced graph does not hold for others.
    free = find_lengths(module, tensors)
    program = convert(free)
    if any(free) and not hold_for_other_lengths(module, tensors, free, program.exported_program.module()):
        free = [()] * len(tensors)
        program = convert(free)
    _require_opset(program.model.opset_imports[""], opset)
    program.save(str(path), external_data=weight_bytes(module) > EXTERNAL_DATA_BYTES)
    # onnxscript's rules for rewriting, which are there for the whole process, refer to the last graph that they rewrote.
    for initializer in program.model.graph.initializers.values():
        initializer.const_value = None
    return free


def _export_script(module: FlatModule, tensors: list[torch.Tensor], path: Path, opset: int) -> list[Axes]:
    """Write the file of a ScriptModule, which has no Python to trace: only the older exporter reads its graph."""
    _require_opset(min(opset, SCRIPT_OPSET), opset)
    args, names = _order_by_position(module, tensors)
    with module.left_as_found(), _without_graph_log():
        torch.onnx.export(
            _copy_with_code(module.model),
            args,
            str(path),
            input_names=names,
            output_names=[RAW_OUTPUT],
            opset_version=opset,
            dynamic_axes={n: {0: "batch"} for n in (*module.call.names, RAW_OUTPUT)},
            dynamo=False,
        )
    return [()] * len(tensors)


def _order_by_position(module: FlatModule, tensors: list[torch.Tensor]) -> tuple[tuple[Any, ...], list[str]]:
    """Return the arguments of a ScriptModule as the older exporter takes them, by position, and their names in this order."""
    args, kwargs = module.call.arguments(tensors)
    script: Any = module.model
    places = script._c._get_method("forward").schema.arguments[1:]
    values = {**dict(zip((place.name for place in places), args, strict=False)), **kwargs}
    if missing := [place.name for place in places if place.name not in values]:
        raise ExportError(
            f"torch.onnx.export needs all arguments of a ScriptModule, and {missing[0]!r} of {module.model_name} is not given."
        )
    names = [name for place in places for name in module.call.names if name.split(".")[0] == place.name]
    return tuple(values[place.name] for place in places), names if kwargs else list(module.call.names)


def _copy_with_code(module: torch.nn.Module) -> torch.nn.Module:
    """Return a copy of a ScriptModule that has its own code, which the older exporter rewrites in place: it inlines all calls.

    A deep copy shares its code with the original, as all modules do that were scripted from one class.
    """
    buffer = io.BytesIO()
    torch.jit.save(module, buffer)
    buffer.seek(0)
    copied: torch.nn.Module = torch.jit.load(buffer)  # type: ignore[no-untyped-call]
    return copied


@contextlib.contextmanager
def _without_graph_log() -> Iterator[None]:
    """Keep the older exporter from printing the graph that it cannot convert, which it does below Python's streams.

    torch 2.13 turns that log on for every export, and leaves it on: its setup_onnx_logging does not call the function
    that says whether it was.
    """
    write_log, was_enabled = torch._C._jit_onnx_log, torch._C._jit_is_onnx_log_enabled()
    torch._C._jit_onnx_log = lambda *_: None
    try:
        yield
    finally:
        torch._C._jit_onnx_log = write_log
        torch._C._jit_set_onnx_log_enabled(was_enabled)


def _require_opset(written: int, requested: int) -> None:
    """Raise an `ExportError` if the exporter writes another operator set, which it does without a word."""
    if written != requested:
        raise ExportError(
            f"opset={requested} was asked for, and torch.onnx.export gives {written} instead; say opset={written}."
        )


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
