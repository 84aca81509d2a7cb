"""``fo-onnx inspect``: what is in a model file or in a file of results."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import click

from ..errors import ModelError, StoreError, reading
from .options import PATH, common, shape_options
from .output import class_text, columns, pairs, rate_text, say, show, size_of, size_text
from .parity_text import parity_line

SHOWN_ROWS = 5
SHOWN_COLUMNS = 10
TIMED_BATCHES = (1, 16, 64, 256)
_TIMED_SECONDS = 0.3


@click.command()
@click.argument("file", type=PATH)
@click.option(
    "--timing", is_flag=True, help="Models: run made-up rows at several batch sizes, and print rows per second."
)
@click.option("--output-name", metavar="NAME", help="Models: which output is meant where there are several.")
@click.option("--device", default="auto", show_default=True, help="Models: where --timing runs.")
@shape_options
@common
def command(
    file: Path, timing: bool, output_name: str | None, device: str, input_shapes: Any, input_dtypes: Any
) -> None:  # fmt: skip
    """Show what is in an ONNX file, a file of results or a run folder."""
    if file.suffix == ".onnx":
        if (input_shapes or input_dtypes) and not timing:
            raise click.UsageError("--input-shape and --input-dtype are for --timing.")
        document, text = _model(file, output_name)
        if timing:
            document["timing"] = timed = _timing(file, output_name, device, input_shapes, input_dtypes)
            rows = [("batch", "rows/s", "ms per batch")]
            rows += [
                (str(t["batch_size"]), rate_text(t["rows_per_s"]).split()[0], f"{t['batch_ms']:.3g}") for t in timed
            ]
            text += f"\n\n{columns(rows)}"
    else:
        if timing or output_name or input_shapes or input_dtypes:
            raise click.UsageError(f"--timing and what goes with it are for .onnx files, which {file} is not.")
        document, text = _results(file)
    show(document, text)


def _model(path: Path, output_name: str | None) -> tuple[dict[str, Any], str]:
    from ..model import OnnxModel
    from ..model_file import external_files, load_proto
    from .export import spec_lines

    model = OnnxModel.open(path, output_name=output_name)
    proto = load_proto(path)
    opsets = {i.domain or "ai.onnx": i.version for i in proto.opset_import}
    beside = external_files(proto, path.parent)
    size = size_of(path) + sum(size_of(f) for f in beside)
    made = model.provenance
    with reading(path, ModelError, "reading the comparison that is recorded in"):
        parity = parity_line(made.get("parity"))
    versions = ", ".join(f"{n} {v}" for n, v in (made.get("versions") or {}).items())
    document = {
        "path": str(path), "kind": "model", "size_bytes": size, "external_data": [f.name for f in beside],
        "sha256": model.sha256, "ours": bool(made), "spec": model.spec.to_dict(), "outputs": [o.name for o in proto.graph.output],
        "opsets": opsets, "producer": f"{proto.producer_name} {proto.producer_version}".strip(), "nodes": len(proto.graph.node),
        "provenance": made,
    }  # fmt: skip
    lines = [
        ("file", f"{path} ({size_text(size)}{f', with {len(beside)} files of external data' if beside else ''})"),
        *spec_lines(model),
        ("graph", f"{len(proto.graph.node)} nodes, opset {', '.join(f'{v} of {d}' for d, v in opsets.items())}"),
        ("producer", document["producer"] or None),
        ("exported", f"{made.get('created')}, {versions}" if made else "not by fo-onnx"),
        ("parity", parity or ("not measured" if made else None)),
        ("sha256", model.sha256),
    ]
    return document, pairs(lines)


def _timing(path: Path, output_name: str | None, device: str, shapes: Any, dtypes: Any) -> list[dict[str, Any]]:
    """Rows per second of one session over all cores, by batch size, on made-up rows."""
    from ..engine import Engine
    from ..model import OnnxModel
    from ..options import DataOptions
    from .data import random_rows

    spec = OnnxModel.open(path, output_name=output_name).spec
    if not shapes:
        unknown = [str(i) for i in spec.inputs if None in i.shape[1:]]
        if unknown:
            raise click.UsageError(
                f"--timing needs --input-shape, since axes of {'; '.join(unknown)} have no fixed size."
            )
        shapes = [(i.name, i.shape[1:]) for i in spec.inputs]
        dtypes = [(i.name, i.dtype) for i in spec.inputs]
    say("timing on made-up rows.")
    sizes = TIMED_BATCHES if spec.fixed_batch is None else (spec.fixed_batch,)
    inputs = random_rows(shapes, dtypes, max(sizes))
    found = []
    with Engine(path, output_name=output_name, device=device) as engine:
        source = engine.source(inputs, DataOptions(signature=engine.signature))
        runner = engine.selection(source.peek(max(sizes)), 1).runners[0]
        for size in sizes:
            batch = source.peek(size).inputs
            runner.run(batch)  # warms up
            seconds: list[float] = []
            begun = time.perf_counter()
            while len(seconds) < 3 or time.perf_counter() - begun < _TIMED_SECONDS:
                start = time.perf_counter()
                runner.run(batch)
                seconds.append(time.perf_counter() - start)
            median = statistics.median(seconds)
            found.append(
                {"batch_size": size, "rows_per_s": size / median, "batch_ms": median * 1e3, "runs": len(seconds)}
            )
    return found


def _results(path: Path) -> tuple[dict[str, Any], str]:
    from .. import store
    from .generate import metrics_lines, runner_lines

    dists = store.load(path)
    meta, metrics = dists.meta, dists.metrics()
    complete, size = meta.get("complete", True) is not False, size_of(path)
    first = dists.slice(0, SHOWN_ROWS)
    document = {
        "path": str(path), "kind": "results", "size_bytes": size, "complete": complete, "rows": len(dists),
        "classes": dists.classes, "class_names": dists.class_names, "id_kind": dists.id_kind,
        "labels": dists.labels is not None, "logits": dists.source.has_logits, "metrics": metrics, "meta": meta,
        "first_rows": {str(k): p for k, p in first.to_dict().items()},
    }  # fmt: skip
    with reading(path, StoreError, "reading the comparison that is recorded in"):
        parity = parity_line(meta.get("parity"))
    model, data, timing = meta.get("model") or {}, meta.get("data") or {}, meta.get("timing") or {}
    lost = {k: v for k, v in (meta.get("rows") or {}).items() if k != "written" and v}
    beside = [n for n, there in (("labels", document["labels"]), ("logits", document["logits"])) if there]
    kept = f" with {' and '.join(beside)}" if beside else ""
    lines = [
        ("file", f"{path} ({size_text(size)})"),
        ("state", None if complete else "UNFINISHED: these are its finished rows; generate --resume goes on with it"),
        ("rows", f"{len(dists)}{kept}, {'integers' if dists.id_kind == 'int' else 'text'} as ids"
                 + "".join(f", {v} {k}" for k, v in lost.items())),
        ("classes", class_text(dists.classes, dists.class_names)),
        ("model", _model_line(model)),
        ("data", _preprocessing(data)),
        ("runner", runner_lines(meta)),
        ("parity", parity),
        ("metrics", metrics_lines(metrics)),
        ("speed", rate_text(timing["rows_per_s"]) if timing.get("rows_per_s") else None),
        ("created", f"{meta['created']}, fo-onnx {meta.get('fo_onnx')}" if meta.get("created") else None),
        ("user", [f"{k} = {v}" for k, v in (meta.get("user") or {}).items()] or None),
    ]  # fmt: skip
    return document, pairs(lines) + (f"\n\n{_table(first)}" if len(first) else "")


def _model_line(model: dict[str, Any]) -> str | None:
    framework, output = model.get("framework"), model.get("output")
    said = [model.get("name"), framework and f"from {framework}", output]  # an unfinished run knows less of its model
    return ", ".join(filter(None, said)) or None


def _preprocessing(data: dict[str, Any]) -> str | None:
    made = data.get("preprocessing")
    return ", ".join(f"{k} {v}" for k, v in made.items() if v is not None) if made else None


def _table(first: Any) -> str:
    """The first rows: id, label, the probabilities, or the largest of them where there are many."""
    names = first.class_names or [str(i) for i in range(first.classes)]
    labels = first.labels
    head = ["id"] + (["label"] if labels is not None else [])
    few = first.classes <= SHOWN_COLUMNS
    rows = [head + (list(names) if few else ["most probable"])]
    for position, (key, probs) in enumerate(zip(first.ids.tolist(), first.probs, strict=True)):
        best = probs.argsort()[::-1][:3]
        values = (
            [f"{p:.4f}" for p in probs] if few else [", ".join(f"{names[i]} {probs[i]:.4f}" for i in best.tolist())]
        )
        rows.append([str(key), *([] if labels is None else [names[labels[position]]]), *values])
    return columns(rows, left=[] if few else [len(rows[0]) - 1])
