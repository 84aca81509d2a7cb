"""Rows out and back: files of every format, and the run folder that a run is written through."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ..distributions import Distributions
from ..errors import StoreError, StoreNotFoundError, reading
from ..rows import Array, chunks
from . import files
from .check import CheckReport, check
from .digest import RowDigest, sealed
from .formats import FORMATS, Format, is_result, target_format
from .memory import MemorySink
from .run_folder import COPY, RunFolder, differences, own_entries
from .run_sink import RunSink
from .schema import Layout, complete_meta
from .shards import read as read_run_folder

__all__ = [
    "FORMATS",
    "CheckReport",
    "Format",
    "MemorySink",
    "RunFolder",
    "RunSink",
    "check",
    "differences",
    "load",
    "save",
    "target_format",
]

SAVE_ROWS = 16_384


def load(path: str | Path) -> Distributions:
    """Opens a file of results, or a run folder, finished or not. Rows are decoded when they are asked for.

    Args:
        path: A file with one of the suffixes in `FORMATS`, or a folder. An unfinished folder gives its finished rows,
            with ``meta["complete"]`` false.

    Raises:
        StoreNotFoundError: Nothing is there.
        StoreError: An unknown suffix; a file that is cut short, damaged, of another kind or of a newer schema.
    """
    path = Path(path)
    with reading(path, StoreError, "Loading"):
        if path.is_dir():
            rows, meta = read_run_folder(path)
            return Distributions.from_rows(rows, meta)
        if not path.exists():
            beside = path.with_name(f"{path.name}.partial")
            hint = (
                f" An unfinished run on its way there is at {beside}: load that, or go on with resume=True."
                if beside.is_dir()
                else ""
            )
            raise StoreNotFoundError(f"Loading {path}: nothing is there.{hint}")
        form = target_format(path)
        if form is None:
            raise StoreError(f"Loading {path}: a file without a suffix; the suffixes are {', '.join(FORMATS)}.")
        return Distributions.from_rows(*form.open(path))


def save(distributions: Distributions, path: str | Path, *, overwrite: bool = False) -> Path:
    """Writes distributions into a file, or a run folder, whose format the suffix tells. It appears whole or not at all.

    Args:
        distributions: What to write; read in parts.
        path: The target. ``.npy`` holds the distributions and meta alone.
        overwrite: Whether a target that is there may be replaced.

    Returns:
        The path.

    Raises:
        StoreExistsError: The target is there and `overwrite` is false, or fo-onnx did not write what is there.
        StoreWriteError: The operating system refuses.
    """
    path = Path(path)
    rows = distributions.source
    distributions.metrics()
    meta = complete_meta(distributions.meta, rows)
    form = target_format(path)
    if form is not None:
        digest = RowDigest(Layout.of(rows))
        for part in chunks(rows):
            digest.update(part)
        meta = sealed(meta, digest.result(), str(path))
        RunFolder.check_target(path, overwrite=overwrite)
        files.remove_remains(path.parent, own_entries)
        doing = "writing the file"
        with (
            files.work_folder(path, doing) as folder,
            files.OutputFile(path, doing, temporary=folder / files.WORK_FILES[0], replaces=is_result) as file,
        ):
            form.write(rows, meta, file)
        return path
    run = RunFolder.create(path, {}, COPY, overwrite=overwrite)
    try:
        sink = run.sink(
            classes=rows.classes, id_kind=rows.id_kind, labels=rows.has_labels, logits=rows.has_logits
        )  # fmt: skip
        for part in chunks(rows, step=SAVE_ROWS):
            sink.append(cast(Array, part.ids), part.probs, part.labels, part.logits)
        # The rows that once came to nothing are no rows of this folder's journal.
        sink.commit({key: value for key, value in meta.items() if key != "rows"}, counts=meta["rows"])
    except BaseException:
        run.remove()
        raise
    return path
