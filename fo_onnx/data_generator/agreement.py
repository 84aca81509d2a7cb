"""Whether distributions are those of a dataset: as many as it has samples, and with the same labels where both have them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..distributions import Distributions
from ..engine.fallback import warn_at_caller
from ..errors import DataError

_UNKNOWN = -1


class Agreement:
    """Compares the samples of a dataset with what is known beside their distributions.

    Attributes:
        codes: (samples,) int64, the class of each sample by the file, −1 where it says none; ``None`` where it has no labels.
    """

    def __init__(self, distributions: Distributions, dataset: Any, samples: int) -> None:
        """Compares the numbers of rows.

        Args:
            distributions: One per sample, by its index.
            dataset: The samples; `classes`, where it has it, names its classes, as torchvision's datasets do.
            samples: Their number.

        Raises:
            DataError: There are more or fewer of them than rows; rows that a run left out as bad are a warning.
        """
        self._names = distributions.class_names
        own = getattr(dataset, "classes", None)
        self._own = tuple(own) if isinstance(own, list | tuple) and all(isinstance(n, str) for n in own) else None
        self.codes: NDArray[np.int64] | None = None
        _require_count(distributions, samples)
        if distributions.labels is not None and distributions.id_kind == "int":
            self.codes = np.full(samples, _UNKNOWN, np.int64)
            ids = distributions.ids
            inside = (ids >= 0) & (ids < samples)
            self.codes[ids[inside]] = distributions.labels[inside]

    def require(self, index: int, label: Any) -> None:
        """Compares the label of one sample. Raises `DataError` where it contradicts the file's."""
        if self._contradicts(index, label):
            raise DataError(f"{self._example(index, label)} {_OTHER_DATA}", position=index)

    def require_all(self, labels: Iterable[Any]) -> None:
        """Compares the labels of all samples, in order.

        Raises:
            DataError: Some contradict the file's; says how many, and which is the first.
        """
        if self.codes is None:
            return
        if isinstance(labels, np.ndarray) and labels.ndim == 1 and labels.dtype.kind in "iu":
            suspects = np.flatnonzero(labels != self.codes).tolist()
        else:
            labels = list(labels)
            suspects = list(range(len(labels)))
        wrong = [i for i in suspects if self._contradicts(i, labels[i])]
        if wrong:
            raise DataError(
                f"the labels of {len(wrong)} of {len(self.codes)} samples contradict those beside the distributions, first: "
                f"{self._example(wrong[0], labels[wrong[0]])} {_OTHER_DATA}",
                position=wrong[0],
            )

    def numbers(self) -> NDArray[np.int64] | None:
        """(samples, 2) the numbers that the label of each sample may be, −1 for any; ``None`` where they cannot be compared."""
        if self.codes is None or self._own is not None:
            return None
        names = self._names or ()
        by_name = [int(n) if n.removeprefix("-").isdecimal() else _UNKNOWN for n in names]
        also = self.codes if not names else np.where(self.codes < 0, _UNKNOWN, np.asarray(by_name)[self.codes])
        return np.stack([self.codes, np.where(also < 0, self.codes, also)], axis=1)

    def _contradicts(self, index: int, label: Any) -> bool:
        code = _UNKNOWN if self.codes is None else int(self.codes[index])
        value = _class_of(label)
        if code == _UNKNOWN or value is None:
            return False
        name = None if self._names is None else self._names[code]
        if isinstance(value, str):
            # Names say nothing where the file has none.
            return name is not None and value != name
        if name is not None and self._own is not None:
            return not 0 <= value < len(self._own) or self._own[value] != name
        # Models of scikit-learn call their classes by the numbers that labels are.
        return value != code and str(value) != name

    def _example(self, index: int, label: Any) -> str:
        assert self.codes is not None
        code = int(self.codes[index])
        named = "" if self._names is None else f" ({self._names[code]!r})"
        return f"the sample at index {index} has the label {_class_of(label)!r}, and the row of this id {code}{named}."


_OTHER_DATA = (
    "They are of another dataset, or of one in another order: pair them with the one that they were generated from."
)


def _require_count(distributions: Distributions, samples: int) -> None:
    rows = len(distributions)
    if rows == samples:
        return
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


def _class_of(label: Any) -> int | str | None:
    """A sample's label as the number or name of a class; ``None`` for what is neither, soft labels say."""
    if isinstance(label, str):
        return label
    if hasattr(label, "detach"):
        label = label.detach().cpu()
    try:
        values = np.asarray(label)
    except (TypeError, ValueError):
        return None
    if values.dtype.kind == "U" and values.size == 1:
        return str(values.reshape(-1)[0])
    if values.dtype.kind not in "biuf" or values.ndim > 1:
        return None
    if values.size > 1:
        one_hot = ((values == 0) | (values == 1)).all() and values.sum() == 1
        return int(values.argmax()) if one_hot else None
    number = float(values.reshape(-1)[0]) if values.size else float("nan")
    return int(values.reshape(-1)[0]) if number.is_integer() else None
