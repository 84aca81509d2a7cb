"""From an element of somebody's data to named input arrays and a label.

Data come as arrays, tuples, dicts, dataclasses, pairs with a label, batches of all these. One class decides what is
what, once per source and on its first element, so that every source answers alike.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from ..errors import DataError
from ..options import DataOptions
from ..protocols import Array
from .assembly import Item, Rows, Unreadable
from .tree import Convert, as_array, flatten, leaves, map_leaves, members, sliceable

LABEL_KEYS = ("label", "labels", "y", "target", "targets")
"""Keys of a dict element that hold its label."""

_log = logging.getLogger("fo_onnx.sources")


@dataclass(frozen=True)
class Plan:
    """How the elements of one source are taken apart; decided on the first.

    Attributes:
        batched: Whether an element is a batch rather than a sample.
        arity: Number of parts where an element is a tuple.
        label: Position or key of the label's part, whether or not there is anything in it.
        has_labels: Whether the first element had a label.
    """

    batched: bool
    arity: int | None
    label: int | str | None
    has_labels: bool


class Structure:
    """Takes elements apart into inputs and label, as the options and the model's signature ask for.

    Args:
        options: `input_getter`, `transform` and `signature` are used.
        convert: Makes an array of a leaf.
    """

    def __init__(self, options: DataOptions, convert: Convert = as_array) -> None:
        self.signature = options.signature
        self.input_getter = options.input_getter
        self.labels_wanted = options.labels is not False
        self.transform = options.transform
        self.convert = convert

    # --- deciding

    def plan(self, element: Any, batched: bool) -> Plan:
        """Decides how elements like this one are taken apart."""
        where, part, label = self._split(element, batched)
        _, parts = _unwrap(element)
        arity = len(parts[1]) if parts is not None and not parts[0] else None
        if self.input_getter is None and self.transform is None:
            named = members(part)
            if named is not None and named[0]:
                dropped = sorted({k for k, _ in named[1]} - set(self._select(named[1])))
                if dropped:
                    _log.info("not among the model's inputs, and left out: %s", ", ".join(dropped))
        return Plan(batched, arity, where, label is not None and self.labels_wanted)

    def is_batch(self, element: Any) -> bool:
        """Whether an element is a batch of samples: told by the model's ranks, else by the label, else by its rank.

        Raises:
            DataError: The model's ranks are known, and the element fits them neither as a sample nor as a batch.
        """
        by_rank = self.batch_by_ranks(element)
        if by_rank is not None:
            return by_rank
        for batched in (False, True):
            _, part, label = self._split(element, batched)
            if label is not None:
                found = self.convert(label)
                if found.ndim == 0:
                    return False
                if found.shape[0] == self._rows(part):
                    return True
        first = next(leaves(self._part(element, False)), None)
        return first is not None and self.convert(first).ndim > 1

    def batch_by_ranks(self, element: Any) -> bool | None:
        """Whether an element is a batch by the model's ranks alone; ``None`` where these do not tell."""
        signature = self.signature
        if signature is None or signature.ranks is None or not signature.required:
            return None
        shapes = ""
        for batched in (True, False):
            try:
                part = self._part(element, batched)
                if batched and self.transform is not None:
                    part = map_leaves(part, lambda leaf: self._sliceable(leaf)[0])
                found = self._inputs(part if self.transform is None else self.transform(part))
            except Exception:
                if self.transform is None:
                    raise
                continue  # a transform may well fail on what is no sample: then the element is no such thing
            arrays = [found[n] for n in signature.required if n in found] or list(found.values())
            if len(arrays) < len(signature.ranks):
                return None
            less = 0 if batched and self.transform is None else 1
            if all(a.ndim == r - less for a, r in zip(arrays, signature.ranks, strict=False)):
                return batched
            shapes = ", ".join(str(a.shape) for a in arrays[: len(signature.ranks)])
        if self.transform is not None:
            return None
        ranks = ", ".join(map(str, signature.ranks))
        raise DataError(
            f"the first element has the shape {shapes}, which is neither a batch nor a sample of the model's input "
            f"({', '.join(signature.required)}): a batch has {ranks} axes, a sample one less."
        )

    # --- taking apart

    def items(self, element: Any, plan: Plan) -> Iterator[Item]:
        """The rows of an element; `Unreadable` what cannot be read, and the last one for a whole batch that cannot."""
        if not plan.batched:
            yield self.sample(element, plan)
            return
        try:
            part, label = self._take(element, plan)
            part = part if self.transform is None else map_leaves(part, self._sliceable)
            inputs = self._inputs(part) if self.transform is None else {}
            arrays = inputs if self.transform is None else {str(i): a for i, a in enumerate(leaves(part))}
            labels = None if label is None else self.convert(label)
            n = common_length(arrays, labels)
        except Exception as err:
            yield Unreadable(err, last=True)
            return
        if self.transform is None:
            yield Rows(inputs, labels)
            return
        for i in range(n):
            try:
                row = self._inputs(self.transform(map_leaves(part, itemgetter(i))))
            except Exception as err:
                yield Unreadable(err)
            else:
                yield Rows({k: a[None] for k, a in row.items()}, None if labels is None else labels[i : i + 1])

    def sample(self, element: Any, plan: Plan) -> Item:
        """The one row of a sample."""
        try:
            part, label = self._take(element, plan)
            inputs = self._inputs(part if self.transform is None else self.transform(part))
            found = None if label is None else self.convert(label)
        except Exception as err:
            return Unreadable(err)
        return Rows({k: a[None] for k, a in inputs.items()}, None if found is None else found[None])

    def whole(self, data: Any) -> dict[str, Array]:
        """The inputs of data that are arrays; `input_getter` and `transform` are not applied."""
        self.plan(data, True)
        return self._inputs(self._split(data, True)[1])

    def label_of(self, data: Any) -> Array | None:
        """The labels of data that are arrays."""
        _, _, label = self._split(data, True)
        return None if label is None else self.convert(label)

    def _take(self, element: Any, plan: Plan) -> tuple[Any, Any]:
        core, parts = _unwrap(element)
        arity = len(parts[1]) if parts is not None and not parts[0] else None
        if arity != plan.arity:
            raise DataError(
                f"an element has {'no parts' if arity is None else f'{arity} parts'} where the first had "
                f"{'none' if plan.arity is None else plan.arity}."
            )
        part, label = _without(core, parts, plan.label)
        label = label if self.labels_wanted else None
        return self.input_getter(element) if self.input_getter is not None else part, label

    def _part(self, element: Any, batched: bool) -> Any:
        return self.input_getter(element) if self.input_getter is not None else self._split(element, batched)[1]

    def _inputs(self, part: Any) -> dict[str, Array]:
        return flatten(self._chosen(part), self.convert)

    def _chosen(self, part: Any) -> Any:
        parts = members(part)
        return self._select(parts[1]) if parts is not None and parts[0] else part

    def _select(self, items: list[tuple[str, Any]]) -> dict[str, Any]:
        """Of named inputs those that the model names; all where it names none of them (it may take a lone dict)."""
        found = {k: v for k, v in items if v is not None}
        if self.signature is None:
            return found
        required = self.signature.required
        known = (*required, *self.signature.optional)
        kept = {k: v for k, v in found.items() if any(_covers(k, n) for n in known)}
        if not kept:
            return found
        missing = [n for n in required if not any(_covers(k, n) for k in kept)]
        if missing:
            raise DataError(
                f"the model's input {', '.join(map(repr, missing))} is missing: the data have "
                f"{', '.join(map(repr, found))}. Rename them, or build the inputs with input_getter=."
            )
        return kept

    # --- finding the label

    def _split(self, element: Any, batched: bool) -> tuple[int | str | None, Any, Any]:
        core, parts = _unwrap(element)
        where: int | str | None = None
        if parts is not None:
            named, items = parts
            where = self._label_key([k for k, _ in items]) if named else self._label_index(core, batched)
        return where, *_without(core, parts, where)

    def _label_key(self, names: list[str]) -> str | None:
        required = self.signature.required if self.signature is not None else ()
        key = next((k for k in LABEL_KEYS if k in names and k not in required), None)
        return key if len(names) > 1 else None

    def _label_index(self, values: Any, batched: bool) -> int | None:
        m, last = len(values), values[-1]
        if last is None and m > 1:
            return m - 1
        signature = self.signature
        if signature is None or self.input_getter is not None:
            return m - 1 if m > 1 and self._like_label(last, values[0], batched) else None
        least, most = len(signature.required), len(signature.required) + len(signature.optional)
        if m > most + 1:
            names = ", ".join((*signature.required, *signature.optional))
            raise DataError(
                f"an element of the data is a tuple of {m} parts, but the model takes {most} "
                f"input{'' if most == 1 else 's'} ({names}): at most these and a label were expected. Put a row of "
                "features into a list or an array, or choose parts with input_getter=."
            )
        if m == 2 and self._holds_all_inputs(values[0], last, batched):
            return 1
        if m <= least:
            return None
        if m == most + 1 or self._like_label(last, values[0], batched):
            return m - 1
        return self._optional_or_label(values, batched)

    def _optional_or_label(self, values: Any, batched: bool) -> int | None:
        """Where the last part may be an optional input as well as a label that is no class: one-hot, a score, a soft target.

        What has the shape of a first input that holds integers, as masks and types of tokens do, is an input. Where labels are left
        out anyway, anything else is one.

        Raises:
            DataError: It cannot be told.
        """
        assert self.signature is not None
        m, last = len(values), values[-1]
        named = (*self.signature.required, *self.signature.optional)
        if members(last) is not None or members(values[0]) is not None:
            return None
        found, first = self.convert(last), self.convert(values[0])
        if first.dtype.kind in "iu" and found.shape == first.shape:
            return None
        if not self.labels_wanted:
            return m - 1
        raise DataError(
            f"the last of {m} parts of an element, {found.dtype} {found.shape}, may be the model's optional input {named[m - 1]!r} or a "
            f"label. Give a dict that names the inputs ({', '.join(named[:m])}), choose the inputs with input_getter=, or leave labels out "
            "with labels=False."
        )

    def _holds_all_inputs(self, part: Any, last: Any, batched: bool) -> bool:
        parts = members(part)
        if parts is None or self.signature is None or members(last) is not None:
            return False
        required = self.signature.required
        if parts[0] and all(any(_covers(k, n) for k, _ in parts[1]) for n in required):
            return True
        count = sum(1 for _ in leaves(part))
        fits = len(required) <= count <= len(required) + len(self.signature.optional)
        return fits and (not parts[0] or self._like_label(last, part, batched))

    def _like_label(self, value: Any, beside: Any, batched: bool) -> bool:
        if members(value) is not None:
            return False
        try:
            found = self.convert(value)
        except DataError:
            return False
        if found.dtype.kind not in "biuU":
            return False
        return found.ndim == 1 and len(found) == self._rows(beside) if batched else found.ndim == 0

    def _sliceable(self, leaf: Any) -> Any:
        return sliceable(leaf, self.convert)

    def _rows(self, part: Any) -> int | None:
        first = next(leaves(part), None)
        shape = () if first is None else self.convert(first).shape
        return shape[0] if shape else None


def common_length(inputs: Mapping[str, Array], labels: Array | None) -> int:
    """The length of the first axis that all arrays share.

    Raises:
        DataError: An array has no axis, or lengths differ.
    """
    for name, array in inputs.items():
        if array.ndim == 0:
            raise DataError(f"input {name!r} is a single number of shape (), not an array of rows, (n, …).")
    lengths = {name: len(a) for name, a in inputs.items()}
    if labels is not None:
        if labels.ndim == 0:
            raise DataError("the labels are a single number: one label per row was expected.")
        lengths["labels"] = len(labels)
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {n}" for name, n in lengths.items())
        raise DataError(f"the arrays have unequal numbers of rows: {listed}. One row per sample was expected in each.")
    return next(iter(lengths.values()))


def _unwrap(element: Any) -> tuple[Any, tuple[bool, list[tuple[str, Any]]] | None]:
    """What stands in tuples of one, as TensorDataset and its kin give for a lone input, and its members."""
    parts = members(element)
    while parts is not None and not parts[0] and len(parts[1]) == 1:
        element = parts[1][0][1]
        parts = members(element)
    return element, parts


def _without(core: Any, parts: tuple[bool, list[tuple[str, Any]]] | None, where: int | str | None) -> tuple[Any, Any]:
    if parts is None or where is None:
        return core, None
    if isinstance(where, str):
        return {k: v for k, v in parts[1] if k != where}, dict(parts[1]).get(where)
    rest = tuple(v for _, v in parts[1][:where])
    return rest[0] if len(rest) == 1 else rest, parts[1][where][1]


def _covers(key: str, name: str) -> bool:
    """Whether the part called `key` is, or holds, the model's input `name`; ``"image"`` holds ``"image.left"``."""
    return key == name or name.startswith(f"{key}.") or key.startswith(f"{name}.")
