"""Rows out and back: files of every format, and the run folder that a run is written through."""

from __future__ import annotations

from pathlib import Path
from typing import cast

from ..distributions import Distributions
from ..distributions.columns import Array, read_chunks
from ..errors import StoreError, StoreNotFoundError, reading
from . import files
from .digest import RowDigest, seal_meta
from .formats.registry import FORMATS, Format, is_result, target_format
from .memory import MemorySink
from .run.folder import RunFolder
from .run.shard_reader import MANIFEST, read_run_folder
from .run.shard_writer import InputDigests, ShardLimits
from .run.sink import RunSink
from .run.target import COPY, list_own_entries, partial_path
from .schema import complete_meta, differences
from .verify import CheckReport, check

__all__ = [
    "FORMATS",
    "MANIFEST",
    "CheckReport",
    "Format",
    "InputDigests",
    "MemorySink",
    "RunFolder",
    "RunSink",
    "ShardLimits",
    "check",
    "differences",
    "files",
    "load",
    "save",
    "target_format",
]


def load(path: str | Path) -> Distributions:
    """Open a file of results, or a run folder, finished or not.

    Rows are decoded when they are asked for; those of JSON and npz are read whole at once.

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
            partial = partial_path(path)
            hint = (
                f" An unfinished run on its way there is at {partial}: load that, or go on with resume=True."
                if partial.is_dir()
                else ""
            )
            raise StoreNotFoundError(f"Loading {path}: nothing is there.{hint}")
        form = target_format(path)
        if form is None:
            raise StoreError(f"Loading {path}: a file without a suffix; the suffixes are {', '.join(FORMATS)}.")
        return Distributions.from_rows(*form.open(path))


def save(distributions: Distributions, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write distributions into a file, or a run folder; the suffix chooses the format. It appears whole or not at all.

    Args:
        distributions: The rows; read in parts, and checked as they are read.
        path: The target. ``.npy`` holds ids, distributions and meta alone.
        overwrite: Whether a target that is there may be replaced.

    Returns:
        The path.

    Raises:
        StoreExistsError: The target is there and `overwrite` is false, or fo-onnx did not write what is there.
        StoreWriteError: The operating system refuses.
        StoreError: The rows come from a file that is damaged.
    """
    path = Path(path)
    rows = distributions.source
    distributions.metrics()
    meta = complete_meta(distributions.meta, rows)
    form = target_format(path)
    if form is not None:
        # The digest stands in meta, which comes before the rows in most formats: they are read twice.
        digest = RowDigest(rows.layout)
        for part in read_chunks(rows):
            digest.update(part)
        meta = seal_meta(meta, digest.result(), str(path))
        RunFolder.check_target(path, overwrite=overwrite)
        files.remove_remains(path.parent, list_own_entries)
        doing = "writing the file"
        with (
            files.work_folder(path, doing) as folder,
            files.OutputFile(path, doing, temporary=folder / files.WORK_FILES[0], replaces=is_result) as file,
        ):
            form.write(rows, meta, file)
        return path
    run = RunFolder.create(path, {}, COPY, overwrite=overwrite)
    try:
        sink = run.sink(**rows.layout.as_dict())
        # In small steps, since a shard ends after an append.
        for part in read_chunks(rows, step=min(rows.step, 16_384)):
            sink.append(cast(Array, part.ids), part.probs, part.labels, part.logits)
        # Bad rows of the run that the result comes from are not in this folder's journal.
        sink.commit({key: value for key, value in meta.items() if key != "rows"}, counts=meta["rows"])
    except BaseException:
        run.remove()
        raise
    return path
