"""TensorFlow variables that a call of a model assigns, put back; and copies on replicas that differ, made alike.

A layer may count its calls, move its statistics or draw a seed in evaluation mode, too. A run leaves a model as it was, and
gives a row the same distribution whichever batch it is in: every batch starts from the values that the model came with. Only
random states go on from batch to batch, since a model that samples would draw the same numbers for each of them otherwise.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from .devices import tf_variables

_ASSIGNING = re.compile(r"Assign\w*|Resource(?!Gather)\w+|Rng\w+|Stateful(?!PartitionedCall)\w+")
"""TensorFlow's operators that write a variable (``ReadVariableOp`` and ``ResourceGather`` read one)."""
_RANDOM_STATE_SIZES = (2, 3)
"""Elements of a random state: keras.random.SeedGenerator has two, tf.random.Generator three."""
_keeping = threading.RLock()
"""Variables belong to models, which threads may share."""

RandomStates = dict[Any, tf.Tensor]
"""Values by the reference of a variable."""


def assigned_by(step: Any, model: Any) -> tuple[Any, ...]:
    """The variables that a traced function (a `ConcreteFunction`) of a model may assign.

    Where an operator in it assigns, or in a function that it calls, these are all that it uses or the model holds: keeping a
    value costs no copy. Where none does there are none.
    """
    graph = step.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    if not any(_ASSIGNING.fullmatch(n.op) for n in nodes):
        return ()
    return copies_of([*step.variables, *tf_variables(model)])


def copies_of(variables: Sequence[Any]) -> tuple[Any, ...]:
    """The variables themselves, and of those of a strategy the copies on its replicas; each once."""
    found = {c.ref(): c for v in variables for c in _copies(v)}
    return tuple(found.values())


@contextlib.contextmanager
def kept(variables: Sequence[Any], states: RandomStates) -> Iterator[None]:
    """Puts the values of variables back when the context ends, also on an error.

    Args:
        variables: Those that may be assigned within.
        states: Where random states go on from, and are left for the next time.
    """
    if not variables:
        yield
        return
    with _keeping:
        # TensorFlow shares the memory of a value that was read until the variable is written.
        before = [(v, v.read_value()) for v in variables]
        try:
            for variable, _ in before:
                if variable.ref() in states:
                    variable.assign(states[variable.ref()])
            yield
        finally:
            for variable, value in before:
                if _is_random_state(variable):
                    states[variable.ref()] = variable.read_value()
                variable.assign(value)


def differing(model: Any) -> tuple[Any, ...]:
    """The variables of a model whose copies on a strategy's replicas differ.

    So do the moving statistics of batch normalization after a training: each replica moves its own (Keras 3 makes its variables
    with the aggregation NONE). Trainable variables are alike, since replicas share their gradients.
    """
    found = (v for v in tf_variables(model) if not v.trainable and len(_copies(v)) > 1)
    return tuple(v for v in found if not _alike([c.numpy() for c in _copies(v)]))


@contextlib.contextmanager
def alike(variables: Sequence[Any]) -> Iterator[None]:
    """Gives every copy of variables the value that the model has outside of its strategy, until the context ends.

    That value is what ``model(x)`` computes with, what is saved, and what becomes ONNX.
    """
    if not variables:
        yield
        return
    with _keeping:
        before = [(c, c.read_value()) for v in variables for c in _copies(v)]
        try:
            for variable in variables:
                value = tf.convert_to_tensor(variable)
                for copy in _copies(variable):
                    copy.assign(value)
            yield
        finally:
            for copy, value in before:
                copy.assign(value)


def _copies(variable: Any) -> tuple[Any, ...]:
    copies = getattr(variable, "values", None)
    return tuple(copies) if isinstance(copies, tuple | list) else (variable,)


def _alike(values: Sequence[Any]) -> bool:
    return all(v.tobytes() == values[0].tobytes() for v in values[1:])


def _is_random_state(variable: Any) -> bool:
    shape = variable.shape
    return bool(variable.dtype.is_integer and shape.rank == 1 and shape[0] in _RANDOM_STATE_SIZES)
