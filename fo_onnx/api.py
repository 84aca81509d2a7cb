"""The few verbs that users call: export, generate, verify; `load` and `save` are the store's.

Their arguments are flat and keyword-only; inside they travel as the dataclasses of `fo_onnx.contracts.options`.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from .contracts.batch import Inputs, count_rows, join_inputs
from .contracts.options import (
    DataOptions,
    ExportArguments,
    GenerateArguments,
    ModelOptions,
    OutputOptions,
    RunOptions,
    declare_arguments,
    positive_int,
    select_options,
    split_arguments,
)
from .contracts.parity_report import ParityReport
from .control.run_control import begin
from .conversion.parity import DEFAULT_TOLERANCE, measure
from .conversion.prepare import export_unverified, prepare_onnx
from .conversion.publish import export_path, publish
from .conversion.reference import open_reference
from .distributions import Distributions
from .engine import Engine
from .engine.open_file import open_file
from .errors import DataError, ModelError, OptionError, ParityError
from .models import plugins
from .models.onnx_model import OnnxModel
from .models.resolve import ResolvedModel, resolve_model
from .runtime.request import RunRequest
from .runtime.tuning import EXAMPLE_ROWS, first_rows, spread_rows
from .sources import open_source
from .store import files


@declare_arguments(ExportArguments)
def export(
    model: Any,
    example: Any = None,
    path: str | os.PathLike[str] | None = None,
    *,
    verify: bool = True,
    overwrite: bool = False,
    **arguments: Unpack[ExportArguments],
) -> OnnxModel:
    """Convert a classifier to an ONNX file that gives distributions, and check that they are the same.

    The file has the output ``probs`` (n, k) float32 and, if the model has logits, ``logits``. It takes batches of any size.

    Args:
        model: A model of a framework that is installed (a ``torch.nn.Module``), or a model file of one.
        example: Rows to trace and to compare with: one batch (an array, a tuple or a dict of arrays, batch axis first), or a
            dataset, of which 256 rows are taken, half of them the first ones, half spread.
        path: Where the file goes; by default ``<model name>.onnx`` in the working folder.
        framework: The framework's name, if it is not to be detected.
        params: Parameters that the model takes beside its inputs (functional frameworks).
        output: What the model's output means: ``"logits"``, ``"probs"``, ``"log_probs"``, ``"binary_logits"``,
            ``"binary_probs"``, or ``"auto"``: by the graph, else by the example.
        output_name: Which output is meant, if the model has several.
        temperature: T of softmax(z / T).
        class_names: One name per class, in the order of the columns.
        model_name: A name for the model in files and messages.
        opset: The ONNX operator set.
        verify: Whether the file is compared with the model on the example.
        tolerance: The largest total variation between a row of the model and of the file.
        overwrite: Whether an existing file may be replaced.
        trust: Whether a model file may run code when it is read (pickles).

    Returns:
        The file with its spec; `OnnxModel.parity` is the comparison.

    Raises:
        ExportError: It could not be converted.
        ParityError: The file does not give the same distributions; nothing was written to `path`.
        OutputError: The output is no distribution, or ambiguous.
        DataError: The example does not fit the model.
        ModelError: `path` exists and ``overwrite`` was not given.
        StoreExistsError: What is at `path` is no export of fo-onnx, and such files are never replaced.
        StoreWriteError: It cannot be written.

    Example:
        >>> model = export(net, images[:256], "digits.onnx", class_names=list("0123456789"))  # doctest: +SKIP
    """
    options, output = select_options(ModelOptions, arguments), select_options(OutputOptions, arguments)
    resolved = resolve_model(model, options, output)
    if resolved.onnx is not None:
        raise ModelError(f"{resolved.onnx.path} is an ONNX file already; generate() and verify() take it as it is.")
    if example is None:
        raise OptionError(
            "export needs example=: one batch, or the dataset, whose first rows trace and check the model."
        )
    target = export_path(path, options.model_name or type(resolved.model).__name__, overwrite=overwrite)
    rows = _read_rows(example, resolved, "exporting needs at least one row to trace the model with; example= is empty.")

    request = _request(resolved, rows, options, output, "cpu")
    reference = open_reference(request)
    request = replace(request, example=reference.inputs)
    plugin = resolved.plugin
    assert plugin is not None
    with files.temporary_folder() as folder:
        if verify:
            fingerprint = plugin.fingerprint(resolved.model, reference.inputs)
            # The file is compared as it is, on its own.
            verified = prepare_onnx(request, reference, Path(folder), fingerprint, ask=False)
            verified.opened.close()
            loaded, parity = verified.loaded, verified.parity.to_dict()
            if not verified.parity.passed:
                raise ParityError(
                    f"exporting {loaded.model.spec.name}: {verified.parity.verdict()}. Nothing was written to {target}."
                )
        else:
            loaded, parity = export_unverified(request, reference, Path(folder)), None
        provenance = {
            "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            "output_name": output.output_name,
            "versions": plugin.versions(),
            "parity": parity,
        }
        return publish(loaded, target, provenance)


@declare_arguments(GenerateArguments)
def generate(model: Any, data: Any, **arguments: Unpack[GenerateArguments]) -> Distributions:
    """Give one class distribution per row of a dataset.

    Args:
        model: An `OnnxModel`, the path of an ``.onnx`` file (ours or anybody's), a model of a framework, its file, or a
            callable over numpy arrays. A model of a framework is exported and compared on the first rows, unless the job is
            so small that this would take longer than its rows. If it fails the model runs natively, with the reason in
            ``meta["runner"]`` and one `FallbackWarning`.
        data: Arrays (n, …), tuples and dicts of them, ``.npy``, ``.npz`` and ``.parquet`` files, a folder of images, any
            sequence of samples or ``(x, y)`` pairs, any iterable of samples or batches, torch datasets and loaders.
        labels: One class per row, if the data do not hold them: integers, names of classes, or a file. ``False`` leaves out
            those that the data hold.
        ids: One id per row, integers or text; by default the row's position.
        out: A file (``.parquet``, ``.json``, ``.npz``, ``.npy``, ``.safetensors``), or a folder for a run folder. With it,
            memory does not grow with the rows, and a run that stops early keeps its finished rows in ``<out>.partial``.
        overwrite: Whether an existing `out` may be replaced.
        resume: Whether an unfinished run in `out` is continued, if there is one.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"tensorrt"``, ``"openvino"``, or a list of them.
        runner: ``"auto"`` (ONNX; native for small jobs, if that is faster, or if ONNX fails), ``"onnx"`` or ``"native"``.
        batch_size: Rows per run of the model. ``"auto"`` goes by rule where that predicts less than 2 s, and is measured on the
            first rows otherwise, with the sessions and threads; the choice is kept on this machine.
        tuning: Cut and spread the run as an earlier one: ``meta["engine"]["tuning"]`` of its result, or the result's path.
        precision: ``"float32"``; ``"tf32"`` on CUDA; ``"auto"`` for the fastest that the device has within `tv_budget`, or one that
            it chose before, by its name: what was tried, how fast and how far off stands in ``meta["precision"]``.
        tv_budget: The 99th percentile of total variation from the float32 rows that ``"auto"`` allows; 0.01 if it is not given.
        framework: The framework's name, if it is not to be detected.
        params: Parameters that the model takes beside its inputs (functional frameworks).
        output: What the model's output means; see `export`.
        output_name: Which output is meant, if the model has several.
        temperature: T of softmax(z / T); for a file that was exported with one, 1 keeps that one.
        keep_logits: Whether logits are kept too.
        output_transform: Takes the raw output as an array and returns distributions (n, k), instead of the head.
        class_names: One name per class, in the order of the columns.
        model_name: A name for the model in the record.
        tolerance: The largest total variation between a row of the model and of its export.
        input_getter: Takes an element of the data and returns the model's input.
        transform: Takes one sample's input and returns what the model gets.
        num_workers: Threads that read rows ahead.
        on_error: A row that cannot be read or run stops the run (``"fail"``), is left out (``"skip"``), or is left out and
            written to ``<out>.errors.jsonl`` (``"record"``).
        max_errors: More such rows than this stop the run.
        timeout_s: Seconds from now on after which the run stops and keeps what it has: opening, export and comparison count.
            A call of a framework is awaited first, and named in the error.
        limit: Only the first rows are taken.
        progress: Whether a bar is shown, and what is done before it; by default if standard error is a terminal.
        meta: Your own record, kept under ``meta["user"]``.
        trust: Whether a model file may run code when it is read (pickles).

    Returns:
        The distributions, one per row, by id. With `out` they are read from the file when they are asked for.

    Raises:
        FoOnnxError: See `fo_onnx.errors`; the message says where the finished rows are.

    Example:
        >>> import numpy as np
        >>> def model(x):
        ...     return x @ np.ones((4, 3), np.float32) * [1, 2, 3]
        >>> dists = generate(model, np.eye(4, dtype=np.float32))
        >>> dists[2].round(3)
        array([0.09 , 0.245, 0.665], dtype=float32)
    """
    of_engine, of_dataset = split_arguments(arguments)
    with begin(arguments.get("timeout_s")), Engine(model, **of_engine) as engine:
        return engine.generate(data, **of_dataset)


def verify(
    model: OnnxModel | str | os.PathLike[str],
    against: Any,
    data: Any,
    *,
    rows: int = EXAMPLE_ROWS,
    tolerance: float = DEFAULT_TOLERANCE,
    device: str = "auto",
    framework: str | None = None,
    params: Any = None,
    trust: bool = False,
) -> ParityReport:
    """Compare an exported file with the model it came from, on real rows.

    Args:
        model: The exported file.
        against: The original: a model of a framework, its file, or a callable.
        data: Rows, as `generate` takes them.
        rows: How many of them are compared: half of them the first ones, half spread over the others.
        tolerance: The largest total variation that counts as the same.
        device: Where the file runs.
        framework: The framework's name, if it is not to be detected.
        params: Parameters that `against` takes beside its inputs (functional frameworks).
        trust: Whether a model file may run code when it is read (pickles).

    Returns:
        The report; `ParityReport.passed` says whether they are the same. A difference is no exception here.

    Raises:
        DataError: The rows do not fit the model, or there are none.
    """
    positive_int("rows", rows)
    options = ModelOptions(framework=framework, params=params, tolerance=tolerance, trust=trust)
    file = resolve_model(model, ModelOptions(), OutputOptions())
    if file.onnx is None:
        raise ModelError("verify() takes an exported file first, and the model that it came from second.")
    original = resolve_model(against, options, OutputOptions())
    if original.onnx is not None:
        raise ModelError(
            f"{original.onnx.path} is an ONNX file; the model that {file.onnx.path} came from was expected."
        )
    batch = _read_rows(data, original, "comparing needs at least one row; the data is empty.", rows)

    # An export of ours knows which output of the original it was made from.
    output = OutputOptions(output_name=file.onnx.provenance.get("output_name"))
    reference = open_reference(_request(original, batch, options, output, "auto"))
    opened = open_file(_request(file, batch, ModelOptions(tolerance=tolerance), OutputOptions(), device))
    try:
        return measure(reference, opened.runners[0], batch_size=opened.plan.batch_size, tolerance=tolerance)
    finally:
        opened.close()


def _read_rows(data: Any, resolved: ResolvedModel, if_empty: str, rows: int = EXAMPLE_ROWS) -> Inputs:
    """Return the first rows of `data` and some that are spread over it, as a model takes them; labels are left out."""
    options = DataOptions(signature=resolved.signature, labels=False)
    source = open_source(data, options, tuple(plugins.source_factories()))
    first = first_rows(source, rows)
    if len(first) == 0:
        raise DataError(if_empty)
    return join_inputs(first.inputs, spread_rows(source, rows))


def _request(
    resolved: ResolvedModel, rows: Inputs, options: ModelOptions, output: OutputOptions, device: str
) -> RunRequest:
    return RunRequest(
        resolved.model, resolved.plugin, rows, count_rows(rows), options, output, RunOptions(device=device)
    )
