"""``tf.data`` pipelines: which rows come, in which order, and how many, as far as the steps of the pipeline say it.

The public face of a dataset says how many elements there are and what they look like. The steps that it is made of
(shuffles, batches, caches) are listed by `_steps`.
"""

from __future__ import annotations

import atexit
import math
import traceback
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import DataError
from fo_onnx.sources.iterables import IterableSource
from fo_onnx.sources.nested import Convert

_BATCHING = ("Batch", "ParallelBatch", "PaddedBatch")
_ELEMENT_BY_ELEMENT = ("Prefetch", "Map", "ParallelMap", "Cache", "Options", "AssertCardinality")
"""Steps that give one element for each that they take."""
_SHUFFLES = {"Shuffle": "shuffle", "ShuffleAndRepeat": "shuffle", "GlobalShuffle": "global shuffle", "Random": "random"}
_IGNORE_STATE = 1
"""tf.data.experimental.ExternalStatePolicy.IGNORE: steps that call Python are written without it."""
_IN_PARALLEL = "rows come in the order in which they are ready"


def open_dataset(dataset: Any, options: DataOptions, convert: Convert) -> Source:
    """Open the rows of a ``tf.data.Dataset``, of samples or of batches, with labels or without.

    Args:
        dataset: The dataset.
        options: How rows are read.
        convert: Makes an array of a tensor.

    Raises:
        DataError: It is shuffled or reads out of order without ``ids=``, or in another order each time; it has no end
            and ``limit=`` is not given; it drops rows.
    """
    _check_steps(dataset, options)
    # Windows of a time series are made by batch(), too; where the model says its ranks, these decide.
    ranks_known = options.signature is not None and options.signature.ranks is not None
    batched = True if _find_batching(dataset) is not None and not ranks_known else None
    # Weights of samples, as in model.fit, are no input.
    elements = _Elements(dataset, has_weights=_has_weights(dataset.element_spec, options))
    return IterableSource(elements, options, convert, batched=batched, length=_row_count(dataset, options))


def samples_of(dataset: Any) -> tuple[Any, int | None]:
    """Return a dataset of samples or of batches as one of samples, and their number where it is known.

    Raises:
        DataError: It gives its rows in a random order, has no end, or drops rows.
    """
    _check_steps(dataset, DataOptions())
    count = _row_count(dataset, DataOptions())
    if _find_batching(dataset) is not None or _is_batch(dataset.element_spec, None):
        return dataset.unbatch(), count
    return dataset, None if count is None else int(dataset.cardinality())


def _steps(dataset: Any, *, stops_at: tuple[str, ...] = ()) -> Iterator[Any]:
    """Yield the steps of a dataset, the last first; without what leads to steps of the kinds `stops_at`.

    Steps and their settings are private attributes of TensorFlow. The public way to them is the graph that TensorFlow
    writes of a dataset, and that is written with the data that are in memory: it takes several times their memory, and
    does not exist above 2 GB.
    """
    pending = [dataset]
    while pending:
        step = pending.pop()
        # Readers of files and datasets of TensorFlow 1 are made of another dataset, and hide its steps.
        while isinstance(inner := getattr(step, "_impl", getattr(step, "_dataset", None)), tf.data.Dataset):
            step = inner
        yield step
        pending += () if _kind(step) in stops_at else step._inputs()


def _find_batching(dataset: Any) -> Any | None:
    """Return the step that made batches of the elements of a dataset, if later steps keep their number."""
    step = next(s for s in _steps(dataset) if _kind(s) not in _ELEMENT_BY_ELEMENT)
    return step if _kind(step) in _BATCHING else None


def _count_rows(batching: Any) -> tuple[int, int]:
    """Return how many elements a batching step takes, below 0 if that is not known, and its batch size, or 0."""
    (before,) = batching._inputs()
    return int(before.cardinality()), int(tf.get_static_value(batching._batch_size) or 0)


def _nodes_called_by(step: Any) -> list[Any]:
    """Return the nodes of the functions that a step calls."""
    graphs = [f.function.graph.as_graph_def() for f in step._functions()]
    return [n for g in graphs for nodes in (g.node, *(f.node_def for f in g.library.function)) for n in nodes]


class _Elements:
    """The elements of a dataset. A dataset itself says that it has a length, and raises when it is asked for it.

    Of elements of (inputs, targets, sample weights), as `keras.utils.unpack_x_y_sample_weight` describes them, the
    weights are left out.
    """

    def __init__(self, dataset: Any, *, has_weights: bool) -> None:
        self._dataset, self._has_weights = dataset, has_weights

    def __iter__(self) -> Iterator[Any]:
        # In a list, so that the iterator can be dropped while a traceback keeps this frame.
        reading = [iter(self._dataset)]
        _open_iterators[id(reading)] = reading
        try:
            while True:
                try:
                    element = next(reading[0])
                except StopIteration:
                    return
                yield element[:2] if self._has_weights else element
        except KeyboardInterrupt as err:
            traceback.clear_frames(err.__traceback__)  # whose frames hold the iterator
            raise
        finally:
            reading.clear()
            _open_iterators.pop(id(reading))


_open_iterators: dict[int, list[Any]] = {}
"""Iterators that have not come to their end."""


@atexit.register
def _drop_iterators() -> None:
    """Drop the iterators of runs that were interrupted, which the traceback of the exception keeps alive.

    One over ``Dataset.from_generator`` that is left when Python has ended waits forever for it (TensorFlow 2.21).
    """
    for reading in list(_open_iterators.values()):
        reading.clear()


def _check_steps(dataset: Any, options: DataOptions) -> None:
    """Raise a `DataError` unless each row comes once, and in an order that ids can fit."""
    if options.limit is None and dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise DataError(
            "the dataset has no end (it was made with repeat(), or from an endless generator), and every row would be run. "
            "Leave the repeat() out, or say how many rows to take with limit=."
        )
    _require_order(dataset, has_ids=options.ids is not None)
    for step in _steps(dataset):
        _require_all_rows(step, options)


def _require_order(dataset: Any, *, has_ids: bool) -> None:
    """Raise a `DataError` for an order that is another one each time; without ids for every random order.

    Whoever made the ids has read the dataset, and a run reads it again. Caches in memory and in files give again what
    they were filled with.
    """
    # What follows is the same for every cause.
    consequence = (
        "another one each time, and the ids= that were given are those of one such order"
        if has_ids
        else "so that results could not be matched with samples"
    )
    for step in _steps(dataset, stops_at=("Cache",) if has_ids else ()):
        called = _nodes_called_by(step)
        shuffle = _find_shuffle(step, called)
        if shuffle is not None and not (has_ids and _is_fixed(step)):
            raise DataError(
                f"the dataset gives its rows in a random order ({shuffle}), {consequence}. Leave that out; or make the order a "
                "fixed one, with shuffle(…, reshuffle_each_iteration=False) or with cache() behind the shuffle, and give the ids "
                "of the rows in that order with ids=."
            )
        if _is_unordered(step, called):
            raise DataError(
                f"the dataset reads in parallel with deterministic=False ({_kind(step).lower()}): {_IN_PARALLEL}, "
                f"{consequence}. Make it with deterministic=True, or end it with cache() and give the ids of the rows in that "
                "order with ids=."
            )
    if dataset.options().deterministic is False:
        raise DataError(
            f"the dataset's options say deterministic=False: {_IN_PARALLEL}, {consequence}. Set options.deterministic = True."
        )


def _find_shuffle(step: Any, called: list[Any]) -> str | None:
    """Return the name of what gives a random order in a step, or in the nodes of the functions that it calls."""
    if _kind(step) in _SHUFFLES:
        return _SHUFFLES[_kind(step)]
    is_inside = any(n.op.startswith(("ShuffleDataset", "ShuffleAndRepeatDataset")) for n in called)
    return f"shuffle, in a function that {_kind(step).lower()} calls" if is_inside else None


def _is_fixed(step: Any) -> bool:
    """Return whether a step gives the same random order each time (see Dataset.shuffle, Dataset.random)."""
    if _kind(step) in ("Shuffle", "GlobalShuffle"):
        return getattr(step, "_reshuffle_each_iteration", True) is False
    # Without a seed both are 0.
    is_seeded = _kind(step) == "Random" and any(tf.get_static_value(seed) for seed in (step._seed, step._seed2))
    return is_seeded and not step._rerandomize


def _is_unordered(step: Any, called: list[Any]) -> bool:
    """Return whether a step, or a function that it calls, gives rows in the order in which they are ready."""
    own: list[Any] = []
    if type(step).__name__ == "_ParallelInterleaveDataset":
        # The only step that keeps the choice nowhere but in its operator. It mostly reads from names of files, which
        # are few; above 2 GB of data in memory the graph is empty, and the choice is not seen. In a graph, a step comes
        # behind those that it reads from.
        variant = tf.data.experimental.to_variant(step)
        content = tf.raw_ops.DatasetToGraphV2(input_dataset=variant, external_state_policy=_IGNORE_STATE).numpy()
        own = [n for n in graph_pb2.GraphDef.FromString(content).node if n.op.startswith("ParallelInterleave")][-1:]
    # To ask the map of attributes for one adds it.
    says_false = any("deterministic" in n.attr and n.attr["deterministic"].s == b"false" for n in called + own)
    return says_false or getattr(step, "_deterministic", None) == "false"


def _require_all_rows(step: Any, options: DataOptions) -> None:
    if _kind(step) == "IgnoreErrors":
        raise DataError(
            "the dataset was made with ignore_errors(), which leaves out the rows that cannot be read without a word: ids would "
            "be those of other rows. Leave it out, and say on_error='skip' or on_error='record'."
        )
    if _kind(step) not in _BATCHING or not tf.get_static_value(step._drop_remainder):
        return
    rows, size = _count_rows(step)
    is_known = rows >= 0 and size > 0
    lost = rows % size if is_known else None
    is_cut = lost is not None and options.limit is not None and options.limit <= rows - lost
    if lost == 0 or is_cut or rows == tf.data.INFINITE_CARDINALITY:
        return
    loss = "may lose rows" if lost is None else f"would lose the last {lost} of {rows} rows"
    raise DataError(f"the dataset was batched with drop_remainder=True and {loss}. Make it with drop_remainder=False.")


def _has_weights(spec: Any, options: DataOptions) -> bool:
    """Return whether elements are (inputs, targets, sample weights), and not several inputs and a label."""
    if not isinstance(spec, tuple) or len(spec) != 3 or options.input_getter is not None:
        return False
    label, weight = spec[1:]
    if not isinstance(weight, tf.TensorSpec) or not weight.dtype.is_floating:
        return False
    if options.signature is None:
        return isinstance(label, tf.TensorSpec) and label.dtype.is_integer
    count, required = len(tf.nest.flatten(spec[0])), len(options.signature.required)
    return required <= count <= required + len(options.signature.optional)


def _row_count(dataset: Any, options: DataOptions) -> int | None:
    """Return how many rows there are, where that is known. A dataset counts its elements, which may be batches."""
    batching, is_batch = _find_batching(dataset), _is_batch(dataset.element_spec, options.signature)
    elements = int(dataset.cardinality())
    if elements < 0:
        return None
    if is_batch is False:
        return elements
    # Batches of batches, and batches that nothing shows to be such, are counted by reading them.
    if batching is None or is_batch is None or _find_batching(batching._inputs()[0]) is not None:
        return None
    rows, size = _count_rows(batching)
    return rows if rows >= 0 and size and elements == math.ceil(rows / size) else None


def _is_batch(spec: Any, signature: InputSignature | None) -> bool | None:
    """Return whether an element is a batch by the model's ranks or by its labels; ``None`` if neither says it."""
    label = spec[-1] if isinstance(spec, tuple) and len(spec) > 1 else None
    rank = getattr(getattr(label, "shape", None), "rank", None)
    if signature is None or signature.ranks is None:
        return None if rank is None else rank > 0
    inputs = spec[0] if isinstance(spec, tuple) else spec
    if isinstance(inputs, dict):
        inputs = inputs.get(signature.required[0])
    rank = getattr(getattr(inputs, "shape", None), "rank", None)
    return {signature.ranks[0]: True, signature.ranks[0] - 1: False}.get(rank) if rank is not None else None


def _kind(step: Any) -> str:
    """Return the name of a step: ``"Batch"`` of ``_BatchDataset``."""
    return type(step).__name__.strip("_").partition("Dataset")[0]
