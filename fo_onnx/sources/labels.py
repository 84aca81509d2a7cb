"""Labels: one class per row, as integers or by name, from wherever they are. What is a class only the model knows."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Array
from ..errors import DataError
from .class_labels import names_of_feature
from .files import read_label_file, reading_data
from .label_finder import is_text


@dataclass(frozen=True)
class Labels:
    """Labels that are known up front.

    Attributes:
        values: (n,) int64.
        class_names: What the numbers count, if that is known; of labels that were text the names, sorted.
        own_numbers: Whether the numbers are the data's own, and not made here from text.
    """

    values: NDArray[np.int64]
    class_names: tuple[str, ...] | None = None
    own_numbers: bool = False


def entries_at(values: Array, positions: NDArray[np.int64], what: str) -> Array:
    """Return the ids or labels of the rows at `positions`, which ascend. Raise a `DataError` if there are too few."""
    if len(positions) and positions[-1] >= len(values):
        raise DataError(
            f"{what} has {len(values)} entries, but the data have more rows: one per row was expected.",
            position=len(values),
        )
    return values[positions]


def check_text(text: str, what: str, cure: str) -> None:
    """Raise a `DataError` for text that no file of results can hold: lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError as err:
        raise DataError(f"{what} is no text in UTF-8, which results are written in; {cure}") from err


def to_classes(values: Array, positions: Array | None = None) -> Array:
    """Return labels as integers, or as names.

    Args:
        values: (n,) or (n, 1): integers, bools, floats that are integral, or text; or one-hot rows (n, k).
        positions: (n,) the rows' positions, if these are some of the labels; if left out, these are all.

    Returns:
        (n,) int64; of text (n,) objects, str.

    Raises:
        DataError: Soft labels, fractions, NaN, integers of more than 64 bits, text among numbers; names the row.
    """
    # One column.
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    elif _is_one_hot(values):
        values = values.argmax(axis=1)
    if values.ndim != 1:
        raise DataError(
            f"labels that are no class: an array of shape {values.shape} was found, one integer per row was expected. "
            "For soft labels give labels=rows.argmax(axis=1), or leave them out with labels=False.",
            position=None if positions is None or not len(positions) else int(positions[0]),
        )
    if not len(values):
        return np.empty(0, dtype=np.int64)
    if is_text(values):
        return _to_texts(values, positions)
    if values.dtype.kind == "O":
        odd = next((i for i, v in enumerate(values) if not isinstance(v, int | float | np.number | np.bool_)), None)
        if odd is not None:
            raise _no_class(values, positions, odd)
        values = values.astype(np.float64)
    if values.dtype.kind not in "biuf":
        raise _no_class(values, positions, 0)
    # NaN, infinities and what does not fit become other numbers, and so are detected.
    with np.errstate(invalid="ignore"):
        classes = values.astype(np.int64)
    is_wrong = classes != values
    if is_wrong.any():
        raise _no_class(values, positions, int(np.argmax(is_wrong)))
    return classes


def _to_texts(values: Array, positions: Array | None) -> Array:
    """Return labels of text as objects: numpy's own text would make each as wide as the longest."""
    texts = values.tolist()
    for i, text in enumerate(texts):
        if isinstance(text, bytes):
            try:
                texts[i] = text.decode()
            except UnicodeDecodeError as err:
                raise _no_class(values, positions, i) from err
        elif not isinstance(text, str):
            raise _no_class(values, positions, i, "The labels before it are text.")
    return np.array(texts, dtype=object)


def _is_one_hot(values: Array) -> bool:
    if values.ndim != 2 or values.shape[1] < 2 or values.dtype.kind not in "biuf":
        return False
    return bool(((values == 0) | (values == 1)).all() and (values.sum(axis=1) == 1).all())


def _no_class(values: Array, positions: Array | None, i: int, advice: str = "") -> DataError:
    position = int(positions[i]) if positions is not None else i
    label = values[i].item() if isinstance(values[i], np.generic) else values[i]
    if label is None or type(label).__name__ in ("NAType", "NaTType") or (isinstance(label, float) and label != label):
        advice = f"{advice} If it stands for no label, leave the labels out with labels=False.".strip()
    message = f"labels that are no class: row {position} has the label {label!r}; an integer or a name was expected."
    return DataError(f"{message} {advice}".rstrip(), position=position)


def to_labels(values: Array, what: str = "labels=", names: tuple[str, ...] | None = None) -> Labels:
    """Return labels (n,) or (n, 1) that are all known: integers as they are, text numbered by its sorted names.

    `names` are those that integers count, if the data say so.
    """
    classes = to_classes(values)
    are_names = classes.dtype.kind == "O"
    if are_names:
        names = tuple(sorted(set(classes.tolist())))
    for name in names or ():
        check_text(name, f"{what} holds {name!r}, which", "give other names.")
    if not are_names or names is None:
        return Labels(classes, names, own_numbers=names is not None)
    numbers = {name: i for i, name in enumerate(names)}
    return Labels(np.fromiter((numbers[v] for v in classes), np.int64, len(classes)), names)


def read_labels(labels: Any) -> Labels:
    """Return what the user gave as labels.

    Args:
        labels: An array or a sequence of integers or text, or the path of a `.npy`, `.json` (a list), `.txt` (one label
            per line) or `.csv` file (one column). A column of Hugging Face's says what its integers count.

    Raises:
        DataNotFoundError: There is no such file.
        DataError: They are no labels.
    """
    if isinstance(labels, str | Path):
        path = Path(labels)
        with reading_data(path, "Reading the labels"):
            return to_labels(read_label_file(path))
    names = names_of_feature(getattr(labels, "features", None))
    if hasattr(labels, "detach"):
        labels = labels.detach().cpu()
    # numpy takes everything else.
    try:
        values = np.asarray(labels)
    except (ValueError, TypeError) as err:
        raise DataError(f"labels= cannot be made one array: {err}. One integer per row was expected.") from err
    if values.ndim == 0:
        raise DataError(f"labels= is a {type(labels).__name__}; one integer per row or a file's path was expected.")
    if isinstance(labels, list | tuple) and values.dtype.kind == "U":
        values = np.array(labels, dtype=object)  # numpy would have made text of integers among text
    return to_labels(values, names=names)
