"""Are recurrences by ``lax.scan`` at least as fast in ONNX Runtime as under ``jax.jit``, and in which form?

Each cell is exported as a model of the last state, and run on the same rows in three ways: in one-thread sessions side by side,
as the engine runs them; in one session of all threads; under ``jax.jit``. Ratios are ONNX Runtime's throughput over jit's.
``--steps-as-operators`` writes GRU and RNN as ONNX's operators too where they would be unrolled.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .measuring import Comparison, environment, take_turns, write

STEPS, FEATURES, HIDDEN = 24, 32, 64
BATCHES = (64, 256, 1024)
ROWS = 4096
THREADS = len(os.sched_getaffinity(0))


def linen(name: str) -> Callable[[Any], Any]:
    """A flax linen cell over the sequence: the last state."""
    import flax.linen as nn
    import jax

    module = nn.RNN(getattr(nn, name)(features=HIDDEN))
    variables = module.init(jax.random.key(0), np.zeros((2, STEPS, FEATURES), np.float32))
    return lambda x: module.apply(variables, x)[:, -1]


def equinox_gru() -> Callable[[Any], Any]:
    """An equinox cell, mapped over the batch."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    cell = eqx.nn.GRUCell(FEATURES, HIDDEN, key=jax.random.key(0))
    return jax.vmap(lambda x: jax.lax.scan(lambda h, x_t: (cell(x_t, h), None), jnp.zeros(HIDDEN), x)[0])


def hand_written_gru() -> Callable[[Any], Any]:
    """The textbook's GRU: the reset gate in front of the matrix product."""
    import jax
    import jax.numpy as jnp

    rng = np.random.default_rng(0)
    w = [0.2 * rng.standard_normal((HIDDEN + FEATURES, HIDDEN), dtype=np.float32) for _ in range(3)]

    def cell(h: Any, x: Any) -> tuple[Any, None]:
        both = jnp.concatenate([h, x], -1)
        z, r = jax.nn.sigmoid(both @ w[0]), jax.nn.sigmoid(both @ w[1])
        n = jnp.tanh(jnp.concatenate([r * h, x], -1) @ w[2])
        return (1 - z) * h + z * n, None

    return lambda x: jax.lax.scan(cell, jnp.zeros((x.shape[0], HIDDEN)), jnp.swapaxes(x, 0, 1))[0]


CELLS: dict[str, Callable[[], Callable[[Any], Any]]] = {
    "flax LSTM": lambda: linen("OptimizedLSTMCell"),
    "flax GRU": lambda: linen("GRUCell"),
    "equinox GRU": equinox_gru,
    "hand-written GRU": hand_written_gru,
    "flax RNN": lambda: linen("SimpleCell"),
}


def paths(
    function: Callable[[Any], Any], model: Path, batches: list[NDArray[np.float32]]
) -> Iterator[tuple[str, Callable[[], list[NDArray[np.float32]]]]]:
    """The ways to run the batches; jit is the first."""
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    import jax
    import onnxruntime as ort

    def session(threads: int) -> Any:
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        # Spinning threads would take the processor from the path that runs next.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])

    compiled = jax.jit(function)
    alone, workers, pool = session(THREADS), [session(1) for _ in range(THREADS)], ThreadPoolExecutor(THREADS)

    def run(opened: Any, part: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        return [opened.run(None, {"x": rows})[0] for rows in part]

    def side_by_side() -> list[NDArray[np.float32]]:
        parts = list(pool.map(run, workers, [batches[i::THREADS] for i in range(THREADS)]))
        return [parts[i % THREADS][i // THREADS] for i in range(len(batches))]

    yield "jit", lambda: [np.asarray(compiled(rows)) for rows in batches]
    yield f"{THREADS} sessions", side_by_side
    yield "1 session", lambda: run(alone, batches)


def compare(name: str, model: Path, function: Callable[[Any], Any], batch: int, turns: int) -> list[Comparison]:
    """Each way in ONNX Runtime against jit, after its output was checked."""
    rng = np.random.default_rng(1)
    batches = [rng.standard_normal((batch, STEPS, FEATURES), dtype=np.float32) for _ in range(ROWS // batch)]
    (_, jit), *others = paths(function, model, batches)
    expected, found = jit(), []
    for way, path in others:
        worst = max(float(np.abs(a - b).max()) for a, b in zip(expected, path(), strict=True))
        if worst > 1e-4:
            sys.exit(f"{name}, batch {batch}: ONNX Runtime and jit differ by {worst:.1e}; nothing was timed.")
        found.append(take_turns(f"{name}, batch {batch}: {way} / jit", path, jit, turns=turns))
        print(found[-1].line(ROWS), flush=True)
    return found


def main() -> None:
    """Prints the ratios; exit code 1 where a cell is slower than jit both ways."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=7)
    parser.add_argument("--steps-as-operators", action="store_true")
    arguments = parser.parse_args()
    from fo_onnx_jax import recurrent_nodes
    from fo_onnx_jax.lowering import write_onnx

    from fo_onnx.spec import TensorSpec

    if arguments.steps_as_operators:
        recurrent_nodes.UNROLLED_STEPS = 0
    print(f"{'throughput, ONNX Runtime / jit':<46} ratio  (min to max)    ONNX Runtime         jit")
    found: list[list[Comparison]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name, build in CELLS.items():
            model, function = Path(folder) / f"{name}.onnx", build()
            write_onnx(function, [TensorSpec("x", "float32", (None, STEPS, FEATURES))], model, opset=18, who=name)
            found += [compare(name, model, function, batch, arguments.turns) for batch in BATCHES]
    form = "operators" if arguments.steps_as_operators else "default"
    path = write("recurrence", [c for pair in found for c in pair], turns=arguments.turns, form=form)
    print(f"written to {path.name}; {environment()['processor']}")
    slow = [pair[0].name for pair in found if max(c.ratio for c in pair) < 1]
    if slow:
        sys.exit(f"slower than jit: {', '.join(slow)}")


if __name__ == "__main__":
    main()
