"""Variables around a call of a model: assigned ones are restored, and copies on replicas that differ made alike.

A layer may count its calls, move its statistics or draw a seed in evaluation mode, too. A run leaves a model as it was,
and gives a row the same distribution whichever batch it is in: every batch starts from the values that the model came
with. Only random states go on from batch to batch, since a model that samples would draw the same numbers for each of
them otherwise.
"""

from __future__ import annotations

import contextlib
import re
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import tensorflow as tf

from .devices import tf_variables

_ASSIGNING_OPERATORS = re.compile(r"Assign\w*|Resource(?!Gather)\w+|Rng\w+|Stateful(?!PartitionedCall)\w+")
"""TensorFlow's operators that write a variable (``ReadVariableOp`` and ``ResourceGather`` read one)."""
_RANDOM_STATE_SIZES = (2, 3)
"""Elements of a random state: keras.random.SeedGenerator has two, tf.random.Generator three."""
_assigning = threading.RLock()
"""Variables belong to models, which threads may share."""

RandomStates = dict[Any, tf.Tensor]
"""Values by the reference of a variable."""


def assigned_by(step: Any, model: Any) -> tuple[Any, ...]:
    """Return the variables that a traced function (a `ConcreteFunction`) of a model may assign.

    If an operator in it assigns, or in a function that it calls, these are all that it uses or the model has: reading a
    value makes no copy. Else there are none.
    """
    graph = step.graph.as_graph_def()
    # Of functions that are called, too, of whichever depth.
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    if not any(_ASSIGNING_OPERATORS.fullmatch(n.op) for n in nodes):
        return ()
    return copies_of([*step.variables, *tf_variables(model)])


def copies_of(variables: Sequence[Any]) -> tuple[Any, ...]:
    """Return the variables themselves, and of those of a strategy the copies on its replicas; each once."""
    copies = {c.ref(): c for v in variables for c in _copies(v)}
    return tuple(copies.values())


@contextlib.contextmanager
def restore_variables(variables: Sequence[Any], states: RandomStates, differing: Sequence[Any] = ()) -> Iterator[None]:
    """Put the values of variables back when the context ends, also on an error.

    Args:
        variables: Those that may be assigned within.
        states: The random states to go on from; those at the end are put there.
        differing: Those whose copies on replicas differ. Within, each copy has the value that ``model(x)`` computes
            with, that is saved, and that becomes ONNX.
    """
    if not variables and not differing:
        yield
        return
    with _assigning:
        # Outside of a replica a variable of a strategy reads as the model's value.
        values = {c.ref(): tf.convert_to_tensor(v) for v in differing for c in _copies(v)} | states
        # TensorFlow shares the memory of a value that was read until the variable is written.
        before = [(v, v.read_value()) for v in copies_of([*variables, *differing])]
        try:
            for variable, _ in before:
                if variable.ref() in values:
                    variable.assign(values[variable.ref()])
            yield
        finally:
            for variable, value in before:
                if _is_random_state(variable):
                    states[variable.ref()] = variable.read_value()
                variable.assign(value)


def differing_variables(model: Any) -> tuple[Any, ...]:
    """Return the variables of a model whose copies on the replicas of a strategy differ.

    So do the moving statistics of batch normalization after a training: each replica moves its own (Keras 3 makes its
    variables with the aggregation NONE). Trainable variables are alike, since replicas share their gradients.
    """
    candidates = (v for v in tf_variables(model) if not v.trainable and len(_copies(v)) > 1)
    return tuple(v for v in candidates if len({c.numpy().tobytes() for c in _copies(v)}) > 1)


def _copies(variable: Any) -> tuple[Any, ...]:
    copies = getattr(variable, "values", None)
    return tuple(copies) if isinstance(copies, tuple | list) else (variable,)


def _is_random_state(variable: Any) -> bool:
    shape = variable.shape
    return bool(variable.dtype.is_integer and shape.rank == 1 and shape[0] in _RANDOM_STATE_SIZES)
