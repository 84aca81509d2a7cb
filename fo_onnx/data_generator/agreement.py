"""Check that distributions are those of a dataset: as many as it has samples, and with the same labels if both have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..distributions import Distributions
from ..errors import DataError, warn_at_caller

_UNKNOWN = -1
_OTHER_DATA = (
    "They are of another dataset, or of one in another order: pair them with the one that they were generated from."
)


class Agreement:
    """Compares the labels of a dataset's samples with those of their distributions."""

    def __init__(self, distributions: Distributions, dataset: Any, samples: int) -> None:
        """Compare the number of distributions with that of the dataset's `samples`.

        Raises:
            DataError: There are more or fewer samples than rows. Rows that a run left out as bad are a warning.
        """
        _require_count(distributions, samples)
        self._names = distributions.class_names
        # Names by which the dataset counts its classes (torchvision's have them), perhaps in another order than the model.
        own = getattr(dataset, "classes", None)
        self._own_names = tuple(own) if isinstance(own, list | tuple) and all(isinstance(n, str) for n in own) else None
        # The class of each sample by the file, −1 if it says none.
        self.codes: NDArray[np.int64] | None = None
        if distributions.labels is not None and distributions.id_kind == "int":
            self.codes = np.full(samples, _UNKNOWN, np.int64)
            inside = (distributions.ids >= 0) & (distributions.ids < samples)
            self.codes[distributions.ids[inside]] = distributions.labels[inside]

    def require(self, position: int, label: Any) -> None:
        """Compare the label of one sample. Raises `DataError` if it contradicts the file's."""
        if self._contradicts(position, label):
            raise DataError(f"{self._describe(position, label)} {_OTHER_DATA}", position=position)

    def require_all(self, labels: Any) -> None:
        """Compare the labels of all samples, in order: a list or an array, or ``None`` if they are not known up front.

        Raises:
            DataError: Labels contradict the file's; says how many, and which is the first.
        """
        if self.codes is None or labels is None:
            return
        suspects: Iterable[int] = range(len(labels))
        if isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu":
            suspects = np.flatnonzero(labels != self.codes).tolist()  # the quick way for millions of samples
        wrong = [i for i in suspects if self._contradicts(i, labels[i])]
        if wrong:
            raise DataError(
                f"the labels of {len(wrong)} of {len(self.codes)} samples contradict those beside the distributions, first: "
                f"{self._describe(wrong[0], labels[wrong[0]])} {_OTHER_DATA}",
                position=wrong[0],
            )

    def numbers(self) -> NDArray[np.int64] | None:
        """Return (samples, 2) the numbers that each label may be, −1 for any; ``None`` if they cannot be compared."""
        if self.codes is None or self._own_names is not None:
            return None
        by_name = [int(n) if n.removeprefix("-").isdecimal() else _UNKNOWN for n in self._names or ()]
        named = self.codes if not by_name else np.where(self.codes < 0, _UNKNOWN, np.asarray(by_name)[self.codes])
        return np.stack([self.codes, np.where(named < 0, self.codes, named)], axis=1)

    def _contradicts(self, position: int, label: Any) -> bool:
        code = _UNKNOWN if self.codes is None else int(self.codes[position])
        value = _to_class(label)
        if code == _UNKNOWN or value is None:
            return False
        name = None if self._names is None else self._names[code]
        if isinstance(value, str):
            # Names say nothing if the file has none.
            return name is not None and value != name
        if name is not None and self._own_names is not None:
            return not 0 <= value < len(self._own_names) or self._own_names[value] != name
        # Models of scikit-learn call their classes by the numbers that labels are.
        return value != code and str(value) != name

    def _describe(self, position: int, label: Any) -> str:
        assert self.codes is not None
        code = int(self.codes[position])
        name = "" if self._names is None else f" ({self._names[code]!r})"
        return (
            f"the sample at index {position} has the label {_to_class(label)!r}, and the row of this id {code}{name}."
        )


def _require_count(distributions: Distributions, samples: int) -> None:
    rows = len(distributions)
    if rows == samples:
        return
    # Bad rows that the run was asked to leave out are no other dataset.
    counts = distributions.meta.get("rows") or {}
    left_out = (counts.get("skipped") or 0) + (counts.get("quarantined") or 0)
    if counts.get("written") == rows and rows + left_out == samples:
        warn_at_caller(
            f"there are {rows} distributions for {samples} samples: the run left {left_out} out, and such a sample is a "
            "KeyError when it is asked for.",
            UserWarning,
        )
        return
    raise DataError(
        f"there are {rows} distributions for {samples} samples; one per sample, by its index, was expected. Pair them with the "
        "dataset that they were generated from, or with the part of it that they are of."
    )


def _to_class(label: Any) -> int | str | None:
    """Return a sample's label as the number or name of a class; ``None`` for what is neither, soft labels for example."""
    if isinstance(label, str):
        return label
    if hasattr(label, "detach"):  # torch
        label = label.detach().cpu()
    try:
        values = np.asarray(label)
    except (TypeError, ValueError):
        return None
    if values.dtype.kind == "U" and values.size == 1:
        return str(values.item())
    if values.dtype.kind not in "biuf" or values.ndim > 1 or values.size == 0:
        return None
    # One-hot rows are classes, other vectors soft labels.
    if values.size > 1:
        one_hot = ((values == 0) | (values == 1)).all() and values.sum() == 1
        return int(values.argmax()) if one_hot else None
    return int(values.item()) if float(values.item()).is_integer() else None
