"""Turns an element of somebody's data into named input arrays and a label.

Data come as arrays, tuples, dicts, dataclasses, pairs with a label, and batches of all these. One class decides which
part is what, once per source, so that every source answers alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

import numpy as np

from ..contracts.batch import Array
from ..contracts.options import DataOptions
from ..errors import DataError
from .batching import Item, ReadRows, Unreadable
from .label_finder import LabelFinder, covers
from .nested import (
    Convert,
    Parts,
    as_array,
    common_length,
    count_rows,
    flatten,
    leaves,
    make_sliceable,
    map_leaves,
    named_leaves,
    parts_of,
)

_log = logging.getLogger("fo_onnx.sources")


@dataclass(frozen=True)
class Layout:
    """The way in which the elements of one source are taken apart.

    Attributes:
        batched: Whether an element is a batch rather than a sample.
        arity: Number of parts if an element is a tuple or a list, else ``None``.
        label: Position or key of the label's part; ``None`` if there is no label.
    """

    batched: bool
    arity: int | None
    label: int | str | None


class ElementParser:
    """Takes elements apart into inputs and label, as the options and the model's signature ask for.

    Attributes:
        layout: How elements are taken apart; ``None`` until the first one has decided it.
        is_assumed: Whether only the axes of the first element say that it is a batch.
    """

    def __init__(self, options: DataOptions, convert: Convert = as_array, *, gives_samples: bool = False) -> None:
        """Take no element apart yet; `gives_samples` says what elements are if neither the model nor a label says it."""
        self.layout: Layout | None = None
        self.is_assumed = False
        self._gives_samples = gives_samples
        self._signature = options.signature
        self._input_getter = options.input_getter
        self._labels_wanted = options.labels is not False
        self._transform = options.transform
        self._convert = convert
        self._label_finder = LabelFinder(options, convert)

    # --- sample or batch

    def is_batch(self, element: Any) -> bool:
        """Return whether an element is a batch of samples, by the model's ranks, else by the label, else by its own axes.

        Raises:
            DataError: The model's ranks are known, and the element fits them neither as a sample nor as a batch.
        """
        by_ranks = self.is_batch_by_ranks(element)
        if by_ranks is not None:
            return by_ranks
        # One label means a sample; as many labels as rows mean a batch.
        for batched in (False, True):
            _, part, label = self._split(element, batched)
            if label is not None:
                labels = self._convert(label)
                if labels.ndim == 0:
                    return False
                if labels.shape[0] == count_rows(part, self._convert):
                    return True
        first = next(leaves(self._input_part(element, False)), None)
        self.is_assumed = not self._gives_samples and first is not None and self._convert(first).ndim > 1
        return self.is_assumed

    def is_batch_by_ranks(self, element: Any) -> bool | None:
        """Return whether an element is a batch by the model's ranks alone; ``None`` if these do not say."""
        signature = self._signature
        if signature is None or signature.ranks is None or not signature.required:
            return None
        shapes = ""
        for batched in (True, False):
            try:
                # What the model would get, if the element were a batch or a sample.
                part = self._input_part(element, batched)
                if batched and self._transform is not None:
                    part = map_leaves(part, lambda leaf: make_sliceable(leaf, self._convert)[0])
                inputs = self._to_inputs(part)
            except Exception:
                if self._transform is None:
                    raise
                continue  # a transform may well fail on what is no sample: then the element is no such thing
            arrays = [inputs[n] for n in signature.required if n in inputs] or list(inputs.values())
            if len(arrays) < len(signature.ranks):
                return None
            # A transform gives one row, whether the element is a sample or a batch.
            missing_axes = 0 if batched and self._transform is None else 1
            if all(a.ndim == rank - missing_axes for a, rank in zip(arrays, signature.ranks, strict=False)):
                return batched
            shapes = ", ".join(str(a.shape) for a in arrays[: len(signature.ranks)])
        if self._transform is not None:
            return None
        ranks = ", ".join(map(str, signature.ranks))
        raise DataError(
            f"the first element has the shape {shapes}, which is neither a batch nor a sample of the model's input "
            f"({', '.join(signature.required)}): a batch has {ranks} axes, a sample one less."
        )

    def _decide_layout(self, element: Any, batched: bool) -> Layout:
        """Return how elements like this one are taken apart, and log which of its parts are left out."""
        label, part, _ = self._split(element, batched)
        parts = parts_of(part)
        if parts is not None and parts.named and self._input_getter is None and self._transform is None:
            dropped = sorted({name for name, _ in parts.items} - set(self._select_inputs(part)))
            if dropped:
                _log.info("not among the model's inputs, and left out: %s", ", ".join(dropped))
        return Layout(batched, _arity(_unwrap(element)[1]), label)

    # --- rows of elements

    def parse_sample(self, element: Any) -> Item:
        """Return the one row of a sample. The first sample that can be read decides the layout of all."""
        try:
            layout = self.layout or self._decide_layout(element, batched=False)
            part, label = self._take_apart(element, layout)
            inputs = self._to_inputs(part)
            labels = None if label is None else self._convert(label)[None]
        except Exception as err:
            return Unreadable(err)
        self.layout = layout
        return ReadRows({name: a[None] for name, a in inputs.items()}, labels)

    def parse_element(self, element: Any, batched: bool | None) -> Iterator[Item]:
        """Yield the rows of an element of a stream. The first element decides the layout of all.

        A row that a transform fails on is `Unreadable`, and so is a whole batch that cannot be read, as the last item.
        Whether elements are batches is said by the first one if `batched` is ``None``.
        """
        if self.layout is None:
            self.layout = self._decide_layout(element, self.is_batch(element) if batched is None else batched)
        if not self.layout.batched:
            yield self.parse_sample(element)
            return
        try:
            part, label = self._take_apart(element, self.layout)
            labels = None if label is None else self._convert(label)
            if self._transform is None:
                inputs = self._to_inputs(part)
                common_length(inputs.items(), labels)
            else:
                part = map_leaves(part, lambda leaf: make_sliceable(leaf, self._convert))
                count = common_length(named_leaves(part), labels)
        except Exception as err:
            yield Unreadable(err, last=True)
            return
        if self._transform is None:
            yield ReadRows(inputs, labels)
            return
        # A transform sees one row at a time, and may fail on some only.
        for i in range(count):
            try:
                row = self._to_inputs(map_leaves(part, itemgetter(i)))
            except Exception as err:
                yield Unreadable(err)
            else:
                yield ReadRows(
                    {name: a[None] for name, a in row.items()}, None if labels is None else labels[i : i + 1]
                )

    def take_inputs(self, columns: Any) -> dict[str, Array]:
        """Return the inputs of data that are arrays; `input_getter` and `transform` are not applied."""
        self._decide_layout(columns, batched=True)  # which logs what is left out
        return self._flatten(self._select_inputs(self._split(columns, batched=True)[1]), is_whole=True)

    def take_labels(self, columns: Any) -> Array | None:
        """Return the labels of data that are arrays."""
        _, _, label = self._split(columns, batched=True)
        return None if label is None else self._convert(label)

    def _take_apart(self, element: Any, layout: Layout) -> tuple[Any, Any]:
        content, parts = _unwrap(element)
        arity = _arity(parts)
        if arity != layout.arity:
            raise DataError(
                f"an element has {'no parts' if arity is None else f'{arity} parts'} where the first had "
                f"{'none' if layout.arity is None else layout.arity}."
            )
        part, label = _separate(content, parts, layout.label)
        if self._input_getter is not None:
            part = self._input_getter(element)
        return part, label if self._labels_wanted else None

    # --- inputs

    def _input_part(self, element: Any, batched: bool) -> Any:
        return self._input_getter(element) if self._input_getter is not None else self._split(element, batched)[1]

    def _to_inputs(self, part: Any) -> dict[str, Array]:
        return self._flatten(self._select_inputs(part if self._transform is None else self._transform(part)))

    def _flatten(self, inputs: Any, *, is_whole: bool = False) -> dict[str, Array]:
        # A function of which nothing is known says itself what it does not take.
        takes_text = self._signature is None or self._signature.takes_text
        return flatten(inputs, self._convert, takes_text=takes_text, is_whole=is_whole)

    def _select_inputs(self, part: Any) -> Any:
        """Return those of named parts that the model names; all but text if it names none of them (it may take a dict)."""
        parts = parts_of(part)
        if parts is None or not parts.named:
            return part
        available = {name: value for name, value in parts.items if value is not None}
        if self._signature is None:
            return _leave_out_text(available)
        required = self._signature.required
        if self._signature.takes_text:
            # What is missing among text is a value like others, and the model takes it or not.
            missing = [name for name, value in parts.items if value is None and name in required]
            available |= dict.fromkeys(missing, np.array(None, dtype=object))
        known = (*required, *self._signature.optional)
        # A lone part may hold several inputs, and a model's input may hold several parts.
        selected = {key: value for key, value in available.items() if any(covers(key, name) for name in known)}
        if not selected:
            return _leave_out_text(available)
        missing = [name for name in required if not any(covers(key, name) for key in selected)]
        if missing:
            raise DataError(
                f"the model's input {', '.join(map(repr, missing))} is missing: the data have "
                f"{', '.join(map(repr, available))}. Rename them, or build the inputs with input_getter=."
            )
        return selected

    def _split(self, element: Any, batched: bool) -> tuple[int | str | None, Any, Any]:
        """Return where the label is, the inputs' part, and the label."""
        content, parts = _unwrap(element)
        place = self._label_finder.find_label(parts, batched)
        return place, *_separate(content, parts, place)


def _unwrap(element: Any) -> tuple[Any, Parts | None]:
    """Return what stands in tuples of one, as TensorDataset and its kin give for a lone input, and its parts."""
    parts = parts_of(element)
    while parts is not None and not parts.named and len(parts.items) == 1:
        element = parts.items[0][1]
        parts = parts_of(element)
    return element, parts


def _leave_out_text(named: dict[str, Any]) -> dict[str, Any]:
    """Return what holds no text, such as the tokens beside the text that they were made of; all if nothing else is there."""
    numbers = {name: value for name, value in named.items() if not _is_text(value)}
    return numbers or named


def _is_text(value: Any) -> bool:
    """Return whether a value is text; the first of several says it for all."""
    if isinstance(value, list | tuple):
        return bool(value) and _is_text(value[0])
    kind = getattr(getattr(value, "dtype", None), "kind", None)
    return (
        isinstance(value, str | bytes)
        or kind in ("U", "S")
        or (kind == "O" and value.size > 0 and _is_text(value.flat[0]))
    )


def _arity(parts: Parts | None) -> int | None:
    return None if parts is None or parts.named else len(parts.items)


def _separate(content: Any, parts: Parts | None, place: int | str | None) -> tuple[Any, Any]:
    """Return the inputs' part and the label of what has its label at `place`."""
    if parts is None or place is None:
        return content, None
    if isinstance(place, str):
        named = dict(parts.items)
        label = named.pop(place, None)
        return named, label
    before = tuple(part for _, part in parts.items[:place])
    return before[0] if len(before) == 1 else before, parts.items[place][1]
