"""The few verbs that users call: export, generate, verify; `load` and `save` are the store's.

Their arguments are flat and keyword-only; inside they travel as the dataclasses of `fo_onnx.options`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from . import plugins
from .distributions import Distributions
from .engine import Engine
from .engine.cache import ExportCache, key_of
from .engine.convert import Cached, convert, converted_or_anew, native_example
from .engine.resolve import resolve
from .engine.tuning import EXAMPLE_ROWS, first_rows
from .engine.verifying import compare, files_of, publish
from .errors import DataError, ModelError, OptionError, ParityError
from .model import OnnxModel
from .options import DataOptions, ModelOptions, OutputOptions, positive_int
from .parity import DEFAULT_TOLERANCE, ParityReport
from .run_control import begin
from .sources import open_source
from .store import files


def export(
    model: Any,
    example: Any = None,
    path: str | os.PathLike[str] | None = None,
    *,
    framework: str | None = None,
    params: Any = None,
    output: str = "auto",
    output_name: str | None = None,
    temperature: float = 1.0,
    class_names: Sequence[str] | None = None,
    model_name: str | None = None,
    opset: int = 18,
    verify: bool = True,
    tolerance: float = DEFAULT_TOLERANCE,
    overwrite: bool = False,
    trust: bool = False,
) -> OnnxModel:
    """Converts a classifier to an ONNX file that gives distributions, and checks that they are the same.

    The file has the output ``probs`` (n, k) float32 and, where the model has logits, ``logits``. It takes batches of any
    size.

    Args:
        model: A model of a framework that is installed (a ``torch.nn.Module``), or a model file of one.
        example: Rows to trace and to compare with: one batch (an array, a tuple or a dict of arrays, batch axis first), or a
            dataset, of which the first 256 rows are taken.
        path: Where the file goes; by default ``<model name>.onnx`` in the working folder.
        framework: The framework's name where it shall not be told from the model.
        params: Parameters that the model takes beside its inputs (functional frameworks).
        output: What the model's output means: ``"logits"``, ``"probs"``, ``"log_probs"``, ``"binary_logits"``,
            ``"binary_probs"``, or ``"auto"``, which tells it from the graph, else from the example.
        output_name: Which output is meant where the model has several.
        temperature: T of softmax(z / T).
        class_names: One name per class, in the order of the columns.
        model_name: A name for the model in files and messages.
        opset: The ONNX operator set.
        verify: Whether the file is compared with the model on the example.
        tolerance: The largest total variation between a row of the model and of the file.
        overwrite: Whether an existing file may be replaced.
        trust: Whether a model file may run code when it is read (pickles).

    Returns:
        The file with its spec; ``provenance["parity"]`` holds the comparison.

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
    model_options = ModelOptions(
        framework=framework, params=params, model_name=model_name, opset=opset, tolerance=tolerance, trust=trust
    )
    output_options = OutputOptions(
        output=output,
        output_name=output_name,
        temperature=temperature,
        class_names=class_names,
    )
    found, exporter = resolve(model, model_options, output_options)
    if exporter is None:
        raise ModelError(f"{found.path} is an ONNX file already; generate() and verify() take it as it is.")
    if example is None:
        raise OptionError(
            "export needs example=: one batch, or the dataset, whose first rows trace and check the model."
        )
    target = files_of(path, model_name or type(found).__name__, overwrite=overwrite)
    source = open_source(example, DataOptions(signature=exporter.signature(found)), tuple(plugins.source_factories()))
    rows = first_rows(source)
    if len(rows) == 0:
        raise DataError("exporting needs at least one row to trace the model with; example= is empty.")
    raw = exporter.native(found, rows.inputs, "auto", model_options, output_options)
    raw_example = native_example(raw, rows.inputs, output_options)
    with files.temporary_folder() as folder:

        def converted(cached: Cached | None) -> tuple[OnnxModel, ParityReport | None]:
            made = convert(
                exporter, found, rows.inputs, Path(folder) / target.name, raw_example=raw_example,
                model_options=model_options, output=output_options, cached=cached,
            )  # fmt: skip
            report = compare(made, raw, rows.inputs, tolerance=tolerance, device="cpu") if verify else None
            if report is not None and not report.passed:
                raise ParityError(f"exporting {made.spec.name}: {report.verdict()}. Nothing was written to {target}.")
            return made, report

        if verify:
            key = key_of(exporter, exporter.fingerprint(found), rows.inputs, model_options, output_options)
            made, report = converted_or_anew(Cached(ExportCache.of_user(), key, Path(folder)), converted)
        else:
            # A cached export that nobody compares could be another model's.
            made, report = converted(None)
        return publish(made, target, report)


def generate(
    model: Any,
    data: Any,
    *,
    labels: Any = None,
    ids: Any = None,
    out: str | os.PathLike[str] | None = None,
    overwrite: bool = False,
    resume: bool = False,
    device: str | Sequence[str] = "auto",
    engine: str = "auto",
    batch_size: int | Literal["auto"] = "auto",
    precision: str = "float32",
    framework: str | None = None,
    params: Any = None,
    output: str = "auto",
    output_name: str | None = None,
    temperature: float = 1.0,
    keep_logits: bool = False,
    output_transform: Callable[[Any], Any] | None = None,
    class_names: Sequence[str] | None = None,
    model_name: str | None = None,
    tolerance: float = DEFAULT_TOLERANCE,
    input_getter: Callable[[Any], Any] | None = None,
    transform: Callable[[Any], Any] | None = None,
    num_workers: int = 0,
    on_error: Literal["fail", "skip", "record"] = "fail",
    max_errors: int | None = None,
    timeout_s: float | None = None,
    limit: int | None = None,
    progress: bool | None = None,
    meta: dict[str, Any] | None = None,
    trust: bool = False,
) -> Distributions:
    """Gives one class distribution per row of a dataset.

    Args:
        model: An `OnnxModel`, the path of an ``.onnx`` file (ours or anybody's), a model of a framework, its file, or a
            callable over numpy arrays. A model of a framework is exported and compared on the first rows; where that
            fails it runs natively, with the reason in ``meta["runner"]`` and one `FallbackWarning`.
        data: Arrays (n, …), tuples and dicts of them, ``.npy``, ``.npz`` and ``.parquet`` files, a folder of images, any
            sequence of samples or ``(x, y)`` pairs, any iterable of samples or batches, torch datasets and loaders.
        labels: One class per row, where the data does not hold them: integers, names of classes, or a file. ``False`` leaves
            those that the data hold out, whatever they are.
        ids: One id per row, integers or text; by default the row's position.
        out: A file (``.parquet``, ``.json``, ``.npz``, ``.npy``, ``.safetensors``), or a folder for a run folder. With it,
            memory does not grow with the rows, and a run that stops early keeps its finished rows in ``<out>.partial``.
        overwrite: Whether an existing `out` may be replaced.
        resume: Goes on with an unfinished run in `out`, if there is one.
        device: ``"auto"``, ``"cpu"``, ``"cuda"``, ``"cuda:N"``, ``"tensorrt"``, ``"openvino"``, or a list of them.
        engine: ``"auto"`` (ONNX, else native), ``"onnx"`` or ``"native"``.
        batch_size: Rows per run of the model.
        precision: ``"float32"``, or ``"tf32"`` on CUDA.
        framework: The framework's name where it shall not be told from the model.
        params: Parameters that the model takes beside its inputs (functional frameworks).
        output: What the model's output means; see `export`.
        output_name: Which output is meant where the model has several.
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
            A call of a framework is let end first, and is named in the error.
        limit: Only the first rows are taken.
        progress: Whether a bar is shown; by default where standard error is a terminal.
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
    with begin(timeout_s), Engine(
        model, device=device, engine=engine, batch_size=batch_size, precision=precision, framework=framework, params=params,
        output=output, output_name=output_name, temperature=temperature, keep_logits=keep_logits,
        output_transform=output_transform, class_names=class_names, model_name=model_name, tolerance=tolerance, trust=trust,
    ) as opened:  # fmt: skip
        return opened.generate(
            data, labels=labels, ids=ids, out=out, overwrite=overwrite, resume=resume, input_getter=input_getter,
            transform=transform, num_workers=num_workers, on_error=on_error, max_errors=max_errors, timeout_s=timeout_s,
            limit=limit, progress=progress, meta=meta,
        )  # fmt: skip


def verify(
    model: OnnxModel | str | os.PathLike[str],
    native: Any,
    data: Any,
    *,
    rows: int = EXAMPLE_ROWS,
    tolerance: float = DEFAULT_TOLERANCE,
    device: str = "auto",
    framework: str | None = None,
    params: Any = None,
    trust: bool = False,
) -> ParityReport:
    """Compares an exported file with the model it came from, on real rows.

    Args:
        model: The exported file.
        native: The original: a model of a framework, its file, or a callable.
        data: Rows, as `generate` takes them.
        rows: How many of them are compared, from the first on.
        tolerance: The largest total variation that counts as the same.
        device: Where the file runs.
        framework: The framework's name where it shall not be told from the model.
        params: Parameters that `native` takes beside its inputs (functional frameworks).
        trust: Whether a model file may run code when it is read (pickles).

    Returns:
        The report; `ParityReport.passed` says whether they are the same. A difference is no exception here.

    Raises:
        DataError: The rows do not fit the model, or there are none.
    """
    positive_int("rows", rows)
    model_options = ModelOptions(framework=framework, params=params, tolerance=tolerance, trust=trust)
    exported, exporter = resolve(model, ModelOptions(), OutputOptions())
    if exporter is not None:
        raise ModelError("verify() takes an exported file first, and the model that it came from second.")
    original, exporter = resolve(native, model_options, OutputOptions())
    if exporter is None:
        raise ModelError(f"{original.path} is an ONNX file; the model that {exported.path} came from was expected.")
    source = open_source(data, DataOptions(signature=exporter.signature(original)), tuple(plugins.source_factories()))
    batch = first_rows(source, rows)
    if len(batch) == 0:
        raise DataError("comparing needs at least one row; the data is empty.")
    # Ours knows which output of the original it was made from.
    output = OutputOptions(output_name=exported.provenance.get("output_name"))
    raw = exporter.native(original, batch.inputs, "auto", model_options, output)
    return compare(exported, raw, batch.inputs, tolerance=tolerance, device=device)
