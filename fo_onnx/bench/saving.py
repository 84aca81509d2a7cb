"""The files of a benchmark: results as JSON, a table in Markdown, a page with plots. Each replaces its kind alone."""

from __future__ import annotations

from pathlib import Path

from ..errors import OptionError, StoreError
from ..store import files
from .page import MARK, write_page
from .report import advise, write_table
from .result import BenchError, BenchResult, read_result

SUFFIXES = {".json": "results", ".md": "a table", ".html": "a page with plots"}
_DOING = "writing the results of a benchmark"


def require_writable(path: Path) -> None:
    """Raise unless `save` could write there: before a benchmark runs, since afterwards it would be lost.

    Raises:
        OptionError: Its suffix says no kind of file.
        StoreError: Its folder is not there, or something else lies there.
    """
    if path.suffix not in SUFFIXES:
        known = ", ".join(f"{suffix} ({kind})" for suffix, kind in SUFFIXES.items())
        raise OptionError(f"{_DOING} to {path}: a file that ends in {known} was expected.")
    if not path.absolute().parent.is_dir():
        raise StoreError(f"{_DOING} to {path}: there is no folder {path.absolute().parent}. Make it first.")
    files.require_replaceable(path, holds_results, _DOING)


def save(result: BenchResult, path: Path, title: str) -> None:
    """Write a benchmark into a file of the kind that its suffix says.

    Args:
        result: The benchmark.
        path: The file. One that a benchmark has written is replaced.
        title: The heading of a page.

    Raises:
        OptionError: The suffix says no kind of file.
        StoreError: Something else lies there, or the file cannot be written.
    """
    require_writable(path)
    if path.suffix == ".json":
        text = result.to_json()
    elif path.suffix == ".md":
        text = f"{MARK}\n{write_table(result)}\n\n{advise(result)}\n"
    else:
        text = write_page(result, title)
    with files.work_folder(path, _DOING) as folder:
        temporary = folder / files.WORK_FILES[0]
        files.write_bytes(path, text.encode(), _DOING, temporary=temporary, replaces=holds_results)


def holds_results(path: Path) -> bool:
    """Return whether a benchmark has written the file."""
    if path.suffix == ".json":
        try:
            read_result(path)
        except BenchError:
            return False
        return True
    with path.open("rb") as file:
        return MARK.encode() in file.read(len(MARK) + 20)
