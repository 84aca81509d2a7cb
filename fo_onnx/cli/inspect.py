"""``fo-onnx inspect``: what is in a model file or in a file of results."""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import Any

import click

from ..errors import ModelError, StoreError, reading
from .shared.options import PATH, common, shape_options
from .shared.output import columns, pairs, rate_text, say, show, size_of, size_text
from .shared.records import lost_text, parity_line, run_lines, spec_lines

SHOWN_ROWS = 5
SHOWN_COLUMNS = 10
TIMED_BATCHES = (1, 16, 64, 256)


@click.command()
@click.argument("file", type=PATH)
@click.option(
    "--timing", is_flag=True, help="Models: run made-up rows at several batch sizes, and print rows per second."
)
@click.option("--output-name", metavar="NAME", help="Models: the output to use if there are several.")
@click.option("--device", default="auto", show_default=True, help="Models: where --timing runs.")
@shape_options
@common
def command(
    file: Path, timing: bool, output_name: str | None, device: str, input_shapes: Any, input_dtypes: Any
) -> None:
    """Show what is in an ONNX file, a file of results or a run folder."""
    # Results
    if file.suffix != ".onnx":
        if timing or output_name or input_shapes or input_dtypes:
            raise click.UsageError(f"--timing and what goes with it are for .onnx files, which {file} is not.")
        show(*_describe_results(file))
        return
    # A model
    if (input_shapes or input_dtypes) and not timing:
        raise click.UsageError("--input-shape and --input-dtype are for --timing.")
    from ..models.onnx_model import load_onnx

    loaded = load_onnx(file, output_name=output_name)
    document, text = _describe_model(loaded)
    if timing:
        document["timing"] = _time_batches(loaded, output_name, device, input_shapes, input_dtypes)
        cells = [
            (str(t["batch_size"]), rate_text(t["rows_per_s"]).split()[0], f"{t['batch_ms']:.3g}")
            for t in document["timing"]
        ]
        text += f"\n\n{columns([('batch', 'rows/s', 'ms per batch'), *cells])}"
    show(document, text)


def _describe_model(loaded: Any) -> tuple[dict[str, Any], str]:
    from ..models.onnx_file import external_files

    model, proto = loaded.model, loaded.proto
    path, provenance = model.path, model.provenance
    opsets = {i.domain or "ai.onnx": i.version for i in proto.opset_import}
    data_files = external_files(proto, path.parent)
    with reading(path, ModelError, "reading the comparison that is recorded in"):
        parity = parity_line(provenance.get("parity"))
    versions = ", ".join(f"{n} {v}" for n, v in (provenance.get("versions") or {}).items())
    document = {
        "path": str(path), "kind": "model", "size_bytes": loaded.size_bytes, "external_data": [f.name for f in data_files],
        "sha256": model.sha256, "ours": bool(provenance), "spec": model.spec.to_dict(), "outputs": [o.name for o in proto.graph.output],
        "opsets": opsets, "producer": f"{proto.producer_name} {proto.producer_version}".strip(), "nodes": len(proto.graph.node),
        "provenance": provenance,
    }  # fmt: skip
    external = f", with {len(data_files)} files of external data" if data_files else ""
    lines = [
        ("file", f"{path} ({size_text(loaded.size_bytes)}{external})"),
        *spec_lines(model),
        ("graph", f"{len(proto.graph.node)} nodes, opset {', '.join(f'{v} of {d}' for d, v in opsets.items())}"),
        ("producer", document["producer"] or None),
        ("exported", f"{provenance.get('created')}, {versions}" if provenance else "not by fo-onnx"),
        ("parity", parity or ("not measured" if provenance else None)),
        ("sha256", model.sha256),
    ]
    return document, pairs(lines)


def _time_batches(loaded: Any, output_name: str | None, device: str, shapes: Any, dtypes: Any) -> list[dict[str, Any]]:
    """Return the rows per second of one session over all cores, by batch size, on made-up rows."""
    from ..engine import Engine
    from .shared.data import random_rows

    # Make rows for every input.
    spec = loaded.model.spec
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
    with Engine(loaded, output_name=output_name, device=device) as engine:
        timings = engine.time_batches(random_rows(shapes, dtypes, max(sizes)), sizes)
    medians = {size: statistics.median(seconds) for size, seconds in timings.items()}
    return [
        {"batch_size": size, "rows_per_s": size / median, "batch_ms": median * 1e3, "runs": len(timings[size])}
        for size, median in medians.items()
    ]


def _describe_results(path: Path) -> tuple[dict[str, Any], str]:
    from .. import store

    dists = store.load(path)
    meta = dists.meta
    complete, size = meta.get("complete", True) is not False, size_of(path)
    first = dists.slice(0, SHOWN_ROWS)
    document = {
        "path": str(path), "kind": "results", "size_bytes": size, "complete": complete, "rows": len(dists),
        "classes": dists.classes, "class_names": dists.class_names, "id_kind": dists.id_kind,
        "labels": dists.labels is not None, "logits": dists.source.layout.logits, "metrics": dists.metrics(), "meta": meta,
        "first_rows": {str(k): p for k, p in first.to_dict().items()},
    }  # fmt: skip
    with reading(path, StoreError, "reading the record of the run in"):
        of_run = run_lines(dists)
    model, data = meta.get("model") or {}, meta.get("data") or {}
    preprocessing = [f"{k} {v}" for k, v in (data.get("preprocessing") or {}).items() if v is not None]
    extra = " and ".join(name for name in ("labels", "logits") if document[name])
    ids = "integers" if dists.id_kind == "int" else "text"
    # Lines for people: each part is left out if the record does not have it. An unfinished run knows less of its model.
    model_parts = [model.get("name"), model.get("framework") and f"from {model['framework']}", model.get("output")]
    lines = [
        ("file", f"{path} ({size_text(size)})"),
        ("state", None if complete else "UNFINISHED: these are its finished rows; generate --resume resumes it"),
        ("rows", f"{len(dists)}{extra and f' with {extra}'}, {ids} as ids{lost_text(meta)}"),
        ("model", ", ".join(filter(None, model_parts)) or None),
        ("data", ", ".join(preprocessing) or None),
        *of_run,
        ("created", f"{meta['created']}, fo-onnx {meta.get('fo_onnx')}" if meta.get("created") else None),
        ("user", [f"{k} = {v}" for k, v in (meta.get("user") or {}).items()] or None),
    ]  # fmt: skip
    return document, pairs(lines) + (f"\n\n{_table(first)}" if len(first) else "")


def _table(first: Any) -> str:
    """Return the first rows: id, label, and the probabilities, or the largest of them if there are many."""
    names = first.class_names or [str(i) for i in range(first.classes)]
    labels = first.labels
    few = first.classes <= SHOWN_COLUMNS
    rows = [["id", *([] if labels is None else ["label"]), *(names if few else ["most probable"])]]
    for position, (key, probs) in enumerate(zip(first.ids.tolist(), first.probs, strict=True)):
        # Of many classes the three largest.
        largest = ", ".join(f"{names[i]} {probs[i]:.4f}" for i in probs.argsort()[::-1][:3].tolist())
        label = [] if labels is None else [names[labels[position]]]
        rows.append([str(key), *label, *([f"{p:.4f}" for p in probs] if few else [largest])])
    return columns(rows, left=[] if few else [len(rows[0]) - 1])
