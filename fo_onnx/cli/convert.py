"""``fo-onnx convert``: results from one format to another."""

from __future__ import annotations

from pathlib import Path

import click

from ..guards.printable import escaped
from .shared.options import PATH, common
from .shared.output import say, show, size_of, size_text


@click.command()
@click.argument("source", type=PATH, metavar="IN")
@click.argument("target", type=PATH, metavar="OUT")
@click.option("--overwrite", is_flag=True, help="Replace OUT.")
@common
def command(source: Path, target: Path, overwrite: bool) -> None:
    """Write a file of results in another format.

    The suffix tells the format: .parquet, .json, .npz, .npy, .safetensors, or none for a run folder.
    """
    from .. import store

    dists = store.load(source)
    form = store.target_format(target)
    # Say what will be missing in the new file.
    if dists.meta.get("complete") is False:
        say(f"{source} is an unfinished run; its {len(dists)} finished rows are converted.")
    if form is not None and not form.keeps_everything:
        say(f"{form.suffix} keeps ids, distributions and meta, without labels and logits.")
    store.save(dists, target, overwrite=overwrite)
    size_bytes = size_of(target)
    document = {
        "source": str(source), "path": str(target), "rows": len(dists), "classes": dists.classes, "size_bytes": size_bytes,
    }  # fmt: skip
    text = (
        f"{len(dists)} rows x {dists.classes} classes: {escaped(source)} ({size_text(size_of(source))}) -> "
        f"{escaped(target)} ({size_text(size_bytes)})"
    )
    show(document, text)
