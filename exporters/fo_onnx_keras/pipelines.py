"""``tf.data`` pipelines: which rows come, in which order, and how many; told by walking the steps that a dataset is made of.

A dataset knows the datasets that it was made from (``_inputs()``) and the functions that it maps (``_functions()``); its public
face says only how many elements there are.
"""

from __future__ import annotations

import atexit
import math
import traceback
from collections.abc import Iterator
from typing import Any

import tensorflow as tf
from tensorflow.core.framework import graph_pb2

from fo_onnx.errors import DataError
from fo_onnx.options import DataOptions
from fo_onnx.protocols import Source
from fo_onnx.sources.iterables import IterableSource
from fo_onnx.sources.tree import Convert
from fo_onnx.spec import InputSignature

_BATCHING = ("_BatchDataset", "_ParallelBatchDataset", "_PaddedBatchDataset")
_ROW_BY_ROW = (
    "_PrefetchDataset",
    "_MapDataset",
    "_ParallelMapDataset",
    "CacheDataset",
    "_OptionsDataset",
    "_AssertCardinalityDataset",
)
"""Steps that give one element for each that they take."""
_REORDERING = {
    "_ShuffleDataset": "shuffle",
    "_ShuffleAndRepeatDataset": "shuffle",
    "_GlobalShuffleDataset": "global shuffle",
    "_RandomDataset": "random",
}
_LOSING = {"_IgnoreErrorsDataset": "ignore_errors"}
_FIXED = "with shuffle(…, reshuffle_each_iteration=False) or with cache() behind the shuffle"
_MATCH = "so that results could not be matched with samples"


def open_dataset(dataset: Any, options: DataOptions, convert: Convert) -> Source:
    """The rows of a ``tf.data.Dataset``, of samples or of batches, with labels or without.

    Args:
        dataset: The dataset.
        options: How rows are read.
        convert: Makes an array of a tensor.

    Raises:
        DataError: It is shuffled or reads out of order without ``ids=``, or in another order each time; it has no end and ``limit=``
            is not given; it drops rows.
    """
    _refuse_endless(dataset, options)
    steps = list(_steps(dataset))
    if options.ids is None:
        _refuse_unordered(dataset, steps)
    else:
        _refuse_varying(dataset)
    for step in steps:
        _refuse_lost_rows(step, options)
    # Windows of a time series are made by batch(), too; where the model says its ranks, they tell.
    ranks_known = options.signature is not None and options.signature.ranks is not None
    batched = True if _last_batching(dataset) is not None and not ranks_known else None
    elements = _Elements(dataset, weighted=_is_weighted(dataset.element_spec, options))
    return IterableSource(elements, options, convert, batched=batched, length=_row_count(dataset, options))


def samples_of(dataset: Any) -> tuple[Any, int | None]:
    """A dataset of samples or of batches as one of samples, and their number where it is known.

    Raises:
        DataError: It gives its rows in a random order, has no end, or drops rows.
    """
    options = DataOptions()
    _refuse_endless(dataset, options)
    steps = list(_steps(dataset))
    _refuse_unordered(dataset, steps)
    for step in steps:
        _refuse_lost_rows(step, options)
    count = _row_count(dataset, options)
    batched = _last_batching(dataset) is not None or _is_batch(dataset.element_spec, None)
    return dataset.unbatch() if batched else dataset, count if batched or count is None else _size(dataset)


class _Elements:
    """A dataset's elements. A dataset itself says that it has a length, and raises when it is asked for it.

    Of elements of (inputs, targets, sample weights), as `keras.utils.unpack_x_y_sample_weight` describes them, the weights are
    left out.
    """

    def __init__(self, dataset: Any, *, weighted: bool) -> None:
        self._dataset, self._weighted = dataset, weighted

    def __iter__(self) -> Iterator[Any]:
        reading = [iter(self._dataset)]
        _being_read[id(reading)] = reading
        try:
            while True:
                try:
                    element = next(reading[0])
                except StopIteration:
                    return
                yield element[:2] if self._weighted else element
        except KeyboardInterrupt as err:
            traceback.clear_frames(err.__traceback__)  # whose frames hold the iterator
            raise
        finally:
            reading.clear()
            _being_read.pop(id(reading))


_being_read: dict[int, list[Any]] = {}
"""Iterators that have not come to their end."""


@atexit.register
def _let_go() -> None:
    """Drops the iterators of runs that were interrupted, and are held by the exception's traceback.

    One over ``Dataset.from_generator`` that is left when Python has ended waits forever for it (TensorFlow 2.21).
    """
    for reading in list(_being_read.values()):
        reading.clear()


def _steps(dataset: Any, *, into_caches: bool = True) -> Iterator[Any]:
    """A dataset and all that it was made from, the last step first; what lies before a cache only where asked for."""
    pending = [dataset]
    while pending:
        step = pending.pop()
        yield step
        if into_caches or type(step).__name__ != "CacheDataset":
            pending.extend(step._inputs())


def _refuse_endless(dataset: Any, options: DataOptions) -> None:
    if options.limit is None and _size(dataset) == tf.data.INFINITE_CARDINALITY:
        raise DataError(
            "the dataset has no end (it was made with repeat(), or from an endless generator), and every row would be run. Leave the "
            "repeat() out, or say how many rows to take with limit=."
        )


def _refuse_unordered(dataset: Any, steps: list[Any]) -> None:
    for step in steps:
        reordering = _reordering(step)
        if reordering is not None:
            raise DataError(
                f"the dataset gives its rows in a random order ({reordering}), {_MATCH}. Leave that out; or make the order a fixed one, "
                f"{_FIXED}, and give the ids of the rows in that order with ids=."
            )
        if _is_unordered(step):
            raise DataError(
                f"the dataset reads in parallel with deterministic=False ({_name(step)}): rows come in the order in which they are "
                f"ready, {_MATCH}. Make it with deterministic=True."
            )
    if dataset.options().deterministic is False:
        raise DataError(
            f"the dataset's options say deterministic=False: rows come in the order in which they are ready, {_MATCH}. Set "
            "options.deterministic = True."
        )


def _refuse_varying(dataset: Any) -> None:
    """Raises a `DataError` for a dataset whose order is another one each time that it is read, so that no ids could fit it.

    Whoever made the ids has read it, and a run reads it again. In-memory and file caches give what they were filled with.
    """
    for step in _steps(dataset, into_caches=False):
        reordering = None if _is_fixed(step) else _reordering(step)
        if reordering is not None:
            raise DataError(
                f"the dataset is given anew in a random order each time that it is read ({reordering}), and the ids= that were given "
                f"are those of one such order. Leave that out, or make the order a fixed one: {_FIXED}."
            )
        if _is_unordered(step):
            raise DataError(
                f"the dataset reads in parallel with deterministic=False ({_name(step)}): rows come in the order in which they are "
                "ready, another one each time, and the ids= that were given are those of one such order. Make it with "
                "deterministic=True, or end it with cache()."
            )
    if dataset.options().deterministic is False:
        raise DataError(
            "the dataset's options say deterministic=False: rows come in the order in which they are ready, another one each time, and "
            "the ids= that were given are those of one such order. Set options.deterministic = True, or end it with cache()."
        )


def _is_fixed(step: Any) -> bool:
    """Whether a step gives the same random order each time (see Dataset.shuffle, Dataset.random)."""
    kind = type(step).__name__
    if kind in ("_ShuffleDataset", "_GlobalShuffleDataset"):
        return getattr(step, "_reshuffle_each_iteration", True) is False
    if kind == "_RandomDataset":
        seeded = any(int(tf.get_static_value(s)) for s in (step._seed, step._seed2))
        return seeded and not getattr(step, "_rerandomize", True)
    return False


def _reordering(step: Any) -> str | None:
    """What in a step gives a random order; in the functions that it calls, too."""
    found = _REORDERING.get(type(step).__name__)
    if found is not None:
        return found
    for function in step._functions():
        for node in _nodes(function.function.graph.as_graph_def()):
            if node.op.startswith("ShuffleDataset") or node.op.startswith("ShuffleAndRepeatDataset"):
                return f"shuffle, in a function that {_name(step)} calls"
    return None


def _is_unordered(step: Any) -> bool:
    """Whether a step, or a dataset that a function of it makes, gives rows in the order in which they are ready."""
    if getattr(step, "_deterministic", None) == "false":
        return True
    graphs = [f.function.graph.as_graph_def() for f in step._functions()]
    if type(step).__name__ == "_ParallelInterleaveDataset":
        # The only step that keeps the choice nowhere but in its operator. What it reads from are names of files, mostly.
        own = graph_pb2.GraphDef()
        own.ParseFromString(step._as_serialized_graph().numpy())
        graphs.append(own)
    return any("deterministic" in n.attr and n.attr["deterministic"].s == b"false" for g in graphs for n in _nodes(g))


def _nodes(graph: Any) -> Iterator[Any]:
    yield from graph.node
    for function in graph.library.function:
        yield from function.node_def


def _refuse_lost_rows(step: Any, options: DataOptions) -> None:
    kind = type(step).__name__
    if kind in _LOSING:
        raise DataError(
            f"the dataset was made with {_LOSING[kind]}(), which leaves out the rows that cannot be read without a word: ids would "
            "be those of other rows. Leave it out, and say on_error='skip' or on_error='record'."
        )
    if kind not in _BATCHING or not _constant(step._drop_remainder):
        return
    (before,), size = step._inputs(), _constant(step._batch_size)
    rows = _size(before)
    if rows == tf.data.INFINITE_CARDINALITY or (rows >= 0 and size and rows % size == 0):
        return
    if options.limit is not None and rows >= 0 and size and options.limit <= rows - rows % size:
        return
    lost = f"would lose the last {rows % size} of {rows} rows" if rows >= 0 and size else "may lose rows"
    raise DataError(f"the dataset was batched with drop_remainder=True and {lost}. Make it with drop_remainder=False.")


def _last_batching(dataset: Any) -> Any | None:
    """The step that made batches of the dataset's elements, where all later ones keep the elements' number."""
    step = dataset
    while type(step).__name__ in _ROW_BY_ROW:
        (step,) = step._inputs()
    return step if type(step).__name__ in _BATCHING else None


def _is_weighted(spec: Any, options: DataOptions) -> bool:
    """Whether elements are (inputs, targets, sample weights), and not the inputs of a model of several, and a label."""
    if not isinstance(spec, tuple) or len(spec) != 3 or options.input_getter is not None:
        return False
    label, weight = spec[1:]
    if not isinstance(weight, tf.TensorSpec) or not weight.dtype.is_floating:
        return False
    if options.signature is None:
        return isinstance(label, tf.TensorSpec) and label.dtype.is_integer
    held, required = len(tf.nest.flatten(spec[0])), len(options.signature.required)
    return required <= held <= required + len(options.signature.optional)


def _row_count(dataset: Any, options: DataOptions) -> int | None:
    """How many rows there are, where that is known. A dataset counts its elements, which may be batches."""
    elements, batching = _size(dataset), _last_batching(dataset)
    is_batch = _is_batch(dataset.element_spec, options.signature)
    if elements < 0:
        return None
    if is_batch is False:
        return elements
    if batching is None or is_batch is None:
        return None
    (before,), size = batching._inputs(), _constant(batching._batch_size)
    rows = _size(before)
    counted = rows >= 0 and size and elements == math.ceil(rows / size) and _last_batching(before) is None
    return rows if counted else None


def _is_batch(spec: Any, signature: InputSignature | None) -> bool | None:
    """Whether an element is a batch by the model's ranks or by its labels; ``None`` where neither tells."""
    label = spec[-1] if isinstance(spec, tuple) and len(spec) > 1 else None
    rank = getattr(getattr(label, "shape", None), "rank", None)
    if signature is None or signature.ranks is None:
        return None if rank is None else rank > 0
    inputs = spec[0] if isinstance(spec, tuple) else spec
    if isinstance(inputs, dict):
        inputs = inputs.get(signature.required[0])
    rank = getattr(getattr(inputs, "shape", None), "rank", None)
    return {signature.ranks[0]: True, signature.ranks[0] - 1: False}.get(rank) if rank is not None else None


def _size(dataset: Any) -> int:
    return int(dataset.cardinality().numpy())


def _constant(tensor: Any) -> int:
    value = tf.get_static_value(tensor)
    return 0 if value is None else int(value)


def _name(step: Any) -> str:
    return type(step).__name__.strip("_").removesuffix("Dataset").lower()
