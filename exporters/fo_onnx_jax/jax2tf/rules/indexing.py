"""Sorting, and gathers and scatters that jax2tf without XLA lacks.

``lax.sort`` is missing in jax2tf; gathers with batching dimensions, as ``jnp.take_along_axis`` and ``vmap`` make them, mostly not; of
scatters that add only those over one axis (``jax/experimental/jax2tf/impl_no_xla.py``).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
import tensorflow as tf

from .onnx_nodes import onnx_node, sizes_of

Rule = Callable[..., Any]

_SORTED_AS = {
    tf.float32: tf.float32, tf.float64: tf.float64, tf.int32: tf.int32, tf.int64: tf.int64, tf.uint32: tf.int64,
    tf.bool: tf.int32, tf.uint8: tf.int32, tf.int8: tf.int32, tf.uint16: tf.int32, tf.int16: tf.int32,
}  # fmt: skip
"""Dtypes, and the one of ONNX Runtime's TopK (float32, float64, int32, int64) that holds their numbers."""


def sort(*operands: Any, dimension: int, num_keys: int, _in_avals: Any, **_: Any) -> tuple[Any, ...]:
    """Convert ``lax.sort_p`` to TopK over the whole axis: rising, stable, by several keys from the last to the first.

    TopK is stable: "Given two equivalent values, this operator uses the indices along the axis as a tiebreaker. That is, the
    element with the lower index will appear first" (ONNX operator TopK). Rows with NaN are in no defined order.
    """
    shape = _in_avals[0].shape
    # Sorting by the last key first leaves the order of the first key, with ties by the others.
    arrays = list(operands)
    for key in reversed(range(num_keys)):
        order = _rising_order(arrays[key], dimension, shape)
        arrays = [onnx_node("GatherElements", [a, order], [(a.dtype, shape)], axis=dimension)[0] for a in arrays]
    return tuple(arrays)


def _rising_order(key: Any, axis: int, shape: Sequence[Any]) -> Any:
    """Return the indices (int64) that sort `key` along an axis."""
    if key.dtype not in _SORTED_AS:
        raise NotImplementedError(f"sort of {key.dtype.name}: ONNX Runtime has no TopK for it")
    key = tf.cast(key, _SORTED_AS[key.dtype])
    length = tf.cast(tf.reshape(sizes_of(shape)[axis], [1]), tf.int64)
    outputs = [(key.dtype, shape), (tf.int64, shape)]
    return onnx_node("TopK", [key, length], outputs, axis=axis, largest=0, sorted=1)[1]


def _gather(
    operand: Any, start_indices: Any, *, original: Rule, dimension_numbers: Any, slice_sizes: Sequence[int],
    mode: Any, _in_avals: Any, _out_aval: Any, **params: Any,
) -> Any:  # fmt: skip
    """Convert ``lax.gather_p`` along one axis, with any batching dimensions in front, or along one with all others batching."""
    numbers, shape = dimension_numbers, _in_avals[0].shape
    axis = _only_axis(numbers, slice_sizes, shape)
    if axis is None or mode == jax.lax.GatherScatterMode.FILL_OR_DROP:
        # jax2tf makes a gather and a mask of the mode, and comes here again.
        return original(
            operand, start_indices, dimension_numbers=numbers, slice_sizes=slice_sizes, mode=mode,
            _in_avals=_in_avals, _out_aval=_out_aval, **params,
        )  # fmt: skip
    batching = tuple(map(int, numbers.operand_batching_dims))
    # Clipped, whatever the mode: masks come after gathers, and ONNX fails on what is out of bounds.
    last = tf.cast(sizes_of(shape)[axis] - 1, tf.int32)
    indices = tf.clip_by_value(tf.cast(tf.squeeze(start_indices, -1), tf.int32), 0, last)
    if len(batching) == len(shape) - 1 and len(_in_avals[1].shape) == len(shape) + 1:
        return onnx_node("GatherElements", [operand, indices], [(operand.dtype, _out_aval.shape)], axis=axis)[0]
    # Any number of indices: TensorFlow's Gather, and then its axes in JAX's order.
    gathered = tf.gather(operand, indices, axis=axis, batch_dims=len(batching))
    # TensorFlow puts what the indices add where the axis was, JAX where its offset_dims are not.
    added = len(_in_avals[1].shape) - 1 - len(batching)
    rank = len(_out_aval.shape)
    windows = [i for i in range(len(batching), rank) if not axis <= i < axis + added]
    others = [i for i in range(rank) if i not in windows]
    return tf.transpose(gathered, [windows.pop(0) if i in numbers.offset_dims else others.pop(0) for i in range(rank)])


def _only_axis(numbers: Any, slice_sizes: Sequence[int], shape: Sequence[Any]) -> int | None:
    """Return the axis that is indexed, if it is one, its slices are single elements and all else is whole."""
    batching = tuple(map(int, numbers.operand_batching_dims))
    if len(numbers.start_index_map) != 1 or tuple(numbers.collapsed_slice_dims) != tuple(numbers.start_index_map):
        return None
    axis = int(numbers.start_index_map[0])
    whole = all(size == shape[i] for i, size in enumerate(slice_sizes) if i not in (*batching, axis))
    in_front = batching == tuple(range(len(batching)))
    alone = len(batching) == len(shape) - 1
    same = tuple(map(int, numbers.start_indices_batching_dims)) == batching
    return axis if whole and same and (in_front or alone) else None


def _scatter(
    operand: Any, indices: Any, updates: Any, *, original: Rule, scatter: Rule, dimension_numbers: Any, mode: Any,
    _in_avals: Any, _out_aval: Any, **params: Any,
) -> Any:  # fmt: skip
    """Convert the ``lax.scatter`` primitives to ONNX's ScatterND, whose indices name one element of each indexed axis.

    JAX drops what is out of bounds, ONNX fails on it: such updates go to an element that is put behind the first indexed
    axis and cut off again.
    """
    numbers = dimension_numbers
    if mode not in (jax.lax.GatherScatterMode.FILL_OR_DROP, jax.lax.GatherScatterMode.PROMISE_IN_BOUNDS):
        return original(
            operand, indices, updates, dimension_numbers=numbers, mode=mode, _in_avals=_in_avals,
            _out_aval=_out_aval, **params,
        )  # fmt: skip
    # The indexed axes in front.
    shape = _in_avals[0].shape
    named = [*map(int, numbers.operand_batching_dims), *map(int, numbers.scatter_dims_to_operand_dims)]
    order = [*named, *(i for i in range(len(shape)) if i not in named)]
    where, updates = _elements(indices, updates, numbers, [a.shape for a in _in_avals], named)
    target = tf.transpose(operand, order)
    target = tf.concat([target, target[:1]], 0)
    scattered = scatter(target, where, tf.cast(updates, target.dtype))[:-1]
    return tf.transpose(scattered, np.argsort(order))


def _elements(
    indices: Any, updates: Any, numbers: Any, shapes: Sequence[Sequence[Any]], named: Sequence[int]
) -> tuple[Any, Any]:
    """Return indices (…, len(named)) of single elements of the named axes, and the updates with these axes in front.

    An index of JAX is where a window begins; its elements along indexed axes get indices of their own here. A window that is
    not whole inside of the array is out of bounds as a whole.
    """
    shape, index_shape, update_shape = shapes
    taken = {*map(int, numbers.inserted_window_dims), *map(int, numbers.operand_batching_dims)}
    axes_of_windows = dict(
        zip([i for i in range(len(shape)) if i not in taken], map(int, numbers.update_window_dims), strict=True)
    )
    wide = [i for i in named if i in axes_of_windows]
    widths = [update_shape[axes_of_windows[i]] for i in wide]
    where = tf.concat([*_own_positions(index_shape, numbers), tf.cast(indices, tf.int32)], -1)
    sizes_of_named = [tf.cast(d, tf.int32) for d in sizes_of([shape[i] for i in named])]
    # What is out of bounds goes to the spare element.
    last = tf.stack(
        [d - (widths[wide.index(i)] if i in wide else 1) for i, d in zip(named, sizes_of_named, strict=True)]
    )
    inside = tf.reduce_all((where >= 0) & (where <= last), -1, keepdims=True)
    # Windows become as many single elements.
    for i, width in zip(wide, widths, strict=True):
        offsets = np.zeros((width, len(named)), np.int32)
        offsets[:, named.index(i)] = np.arange(width)
        where, inside = tf.expand_dims(where, -2) + offsets, tf.expand_dims(inside, -2)
    spare = tf.stack([sizes_of_named[0], *[tf.constant(0)] * (len(named) - 1)])
    where = tf.where(inside, where, tf.broadcast_to(spare, tf.shape(where)))
    ahead = [axes_of_windows[i] for i in wide]
    behind = [d for i, d in axes_of_windows.items() if i not in wide]
    batch = [i for i in range(len(update_shape)) if i not in (*ahead, *behind)]
    return where, tf.transpose(updates, [*batch, *ahead, *behind])


def _own_positions(index_shape: Sequence[Any], numbers: Any) -> list[Any]:
    """Return for each batching dimension the position in it, in the shape of the indices."""
    whole = sizes_of([*index_shape[:-1], 1])
    all_positions = []
    for axis in map(int, numbers.scatter_indices_batching_dims):
        positions = tf.reshape(
            tf.range(whole[axis], dtype=tf.int32), [-1 if i == axis else 1 for i in range(len(whole))]
        )
        all_positions.append(tf.broadcast_to(positions, whole))
    return all_positions


def _argument(operand: Any, *, original: Rule, axes: Sequence[int], **params: Any) -> Any:
    """Convert ``lax.argmax_p`` and ``argmin_p``; ``vmap`` makes numpy integers of axes, which TensorFlow refuses here."""
    return original(operand, axes=tuple(map(int, axes)), **params)


def make_rules(originals: dict[Any, Rule]) -> dict[Any, Rule]:
    """Return the rules of this file; `originals` are jax2tf's, for what these do not take."""
    lax = jax.lax
    scatters = {
        lax.scatter_p: tf.tensor_scatter_nd_update,
        lax.scatter_add_p: tf.tensor_scatter_nd_add,
        lax.scatter_sub_p: tf.tensor_scatter_nd_sub,
        lax.scatter_min_p: tf.tensor_scatter_nd_min,
        lax.scatter_max_p: tf.tensor_scatter_nd_max,
    }
    return {
        lax.sort_p: sort,
        **{p: functools.partial(_argument, original=originals[p]) for p in (lax.argmax_p, lax.argmin_p)},
        lax.gather_p: functools.partial(_gather, original=originals[lax.gather_p]),
        **{
            p: functools.partial(_scatter, scatter=scatter, original=originals.get(p, _no_original))
            for p, scatter in scatters.items()
        },
    }


def _no_original(*_: Any, dimension_numbers: Any, **__: Any) -> Any:
    raise NotImplementedError(f"a scatter with {dimension_numbers}")
