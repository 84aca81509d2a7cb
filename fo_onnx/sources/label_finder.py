"""Finds the label in an element of somebody's data: by its key, or by its place in a tuple."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from ..contracts.batch import Array
from ..contracts.options import DataOptions
from ..errors import DataError
from .nested import Convert, Parts, count_rows, leaves, parts_of

LABEL_KEYS = ("label", "labels", "y", "target", "targets")
"""Keys of a dict element that hold its label."""


@dataclass(frozen=True)
class LabelFinder:
    """Tells labels from inputs, as the options and the model's signature ask for."""

    options: DataOptions
    convert: Convert

    def find_label(self, parts: Parts | None, batched: bool) -> int | str | None:
        """Return the position or the key of the label among the parts of a sample or a batch; ``None`` if there is none.

        Raises:
            DataError: There are too many parts for the model, or the last one may be an input as well as a label.
        """
        if parts is None:
            return None
        if parts.named:
            return find_label_name([name for name, _ in parts.items], self.options) if len(parts.items) > 1 else None
        return self._label_index([part for _, part in parts.items], batched)

    def _label_index(self, values: list[Any], batched: bool) -> int | None:
        # Without the model's inputs, an integer at the end is the label.
        count, last = len(values), values[-1]
        if last is None and count > 1:
            return count - 1
        signature = self.options.signature
        if signature is None or self.options.input_getter is not None:
            return count - 1 if count > 1 and self._is_like_label(last, values[0], batched) else None
        # The model says how many inputs there may be: one part more is the label.
        least, most = len(signature.required), len(signature.required) + len(signature.optional)
        if count > most + 1:
            names = ", ".join((*signature.required, *signature.optional))
            raise DataError(
                f"an element of the data is a tuple of {count} parts, but the model takes {most} "
                f"input{'' if most == 1 else 's'} ({names}): at most these and a label were expected. Put a row of "
                "features into a list or an array, or choose parts with input_getter=."
            )
        if count == 2 and self._holds_all_inputs(values[0], last, batched):
            return 1
        if count <= least:
            return None
        if count == most + 1 or self._is_like_label(last, values[0], batched):
            return count - 1
        # The last part may be an optional input as well as a label that is no class: one-hot, a score, a soft target.
        if parts_of(last) is not None or parts_of(values[0]) is not None:
            return None
        array, first = self.convert(last), self.convert(values[0])
        if first.dtype.kind in "iu" and array.shape == first.shape:
            return None  # masks and types of tokens have the shape of the tokens
        if self.options.labels is False:
            return count - 1
        named = (*signature.required, *signature.optional)
        raise DataError(
            f"the last of {count} parts of an element, {array.dtype} {array.shape}, may be the model's optional input "
            f"{named[count - 1]!r} or a label. Give a dict that names the inputs ({', '.join(named[:count])}), choose "
            "the inputs with input_getter=, or leave labels out with labels=False."
        )

    def _holds_all_inputs(self, part: Any, last: Any, batched: bool) -> bool:
        parts = parts_of(part)
        if parts is None or self.options.signature is None or parts_of(last) is not None:
            return False
        required = self.options.signature.required
        # By name, else by number.
        if parts.named and all(any(covers(key, name) for key, _ in parts.items) for name in required):
            return True
        count = sum(1 for _ in leaves(part))
        fits = len(required) <= count <= len(required) + len(self.options.signature.optional)
        return fits and (not parts.named or self._is_like_label(last, part, batched))

    def _is_like_label(self, value: Any, inputs: Any, batched: bool) -> bool:
        if parts_of(value) is not None and not _is_texts(value):
            return False
        try:
            array = self.convert(value)
        except DataError:
            return False
        if array.dtype.kind not in "biu" and not (array.size and is_text(array.reshape(-1))):
            return False
        return array.ndim == 1 and len(array) == count_rows(inputs, self.convert) if batched else array.ndim == 0


def is_text(values: Array) -> bool:
    """Return whether labels (n,) are text, also as bytes or objects; the first one says it for all."""
    return values.dtype.kind in "US" or (values.dtype.kind == "O" and len(values) > 0 and isinstance(values[0], str))


def _is_texts(value: Any) -> bool:
    """Return whether a value is a tuple of text, as torch's loaders give for the labels of a batch."""
    return isinstance(value, tuple) and len(value) > 0 and all(isinstance(v, str) for v in value)


def find_label_name(names: Collection[str], options: DataOptions) -> str | None:
    """Return the name that a label is called by; ``None`` if there is none but the model's inputs."""
    required = () if options.signature is None else options.signature.required
    return next((key for key in LABEL_KEYS if key in names and key not in required), None)


def covers(key: str, name: str) -> bool:
    """Return whether the part `key` is, or holds, the model's input `name`; ``"image"`` holds ``"image.left"``."""
    return key == name or name.startswith(f"{key}.") or key.startswith(f"{name}.")
