"""The guide's own benchmark: distributions of 10,000 samples and 10 classes at batch 64, the former way and by the engine.

The four rows of the guide's table, on this machine: a loop in the framework that fills a dict of rows, against the generator of
the same module. One small convolutional net with the same weights in all; each row runs in a process of its own, in turns, and
each way once more alone, for its memory. The export is taken from the cache after the first run, whose time is shown beside.

    python -m benchmarks.bench_guide
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .measuring import Comparison, environment, take_turns, write

SAMPLES, CLASSES, BATCH = 10_000, 10, 64
SIDE, CHANNELS = 32, (3, 16, 32, 64)
LIMITS = {"agnostic, exportable": 3.0}
"""How many times as fast as the former way the engine is to be; 1 where nothing stands here."""
KEEPING_PAGES = {"MALLOC_TRIM_THRESHOLD_": "1000000000", "MALLOC_MMAP_THRESHOLD_": "1000000000"}
"""For both ways: else it is chance whether glibc gives numpy's temporaries back after each batch, which is a quarter of the time."""
Array = NDArray[np.float32]
Path = Callable[[], dict[int, Any]]


def weights() -> tuple[list[tuple[Array, Array]], tuple[Array, Array]]:
    """Kernels (out, in, 3, 3) and biases of the convolutions, and the matrix (features, classes) and bias behind them."""
    rng = np.random.default_rng(0)

    def normal(*shape: int, fan: int) -> Array:
        return (rng.standard_normal(shape) * np.sqrt(2 / fan)).astype(np.float32)

    pairs = itertools.pairwise(CHANNELS)
    convolutions = [(normal(b, a, 3, 3, fan=9 * a), normal(b, fan=100)) for a, b in pairs]
    features = CHANNELS[-1] * (SIDE // 8) ** 2
    return convolutions, (normal(features, CLASSES, fan=features // 8), normal(CLASSES, fan=100))


def data() -> tuple[Array, NDArray[np.int64]]:
    """Images (n, 3, 32, 32) and labels."""
    rng = np.random.default_rng(1)
    return rng.standard_normal((SAMPLES, 3, SIDE, SIDE), dtype=np.float32), rng.integers(0, CLASSES, SAMPLES)


def torch_net() -> Any:
    """The net in torch: NCHW."""
    import torch

    convolutions, (matrix, bias) = weights()
    layers: list[Any] = []
    for kernel, offset in convolutions:
        layer = torch.nn.Conv2d(kernel.shape[1], kernel.shape[0], 3, padding=1)
        layer.weight.data, layer.bias.data = torch.tensor(kernel), torch.tensor(offset)
        layers += [layer, torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
    last = torch.nn.Linear(*matrix.shape)
    last.weight.data, last.bias.data = torch.tensor(matrix.T.copy()), torch.tensor(bias)
    return torch.nn.Sequential(*layers, torch.nn.Flatten(), last).eval()


def in_torch() -> tuple[Path, Path]:
    """The former loop over a ``DataLoader``, and the torch module's generator."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    from fo_onnx.data_generator.torch_first_order_generator import FirstOrderDataGenerator

    x, y = data()
    net, dataset = torch_net(), TensorDataset(torch.tensor(x), torch.tensor(y))

    @torch.no_grad()
    def former() -> dict[int, Any]:
        rows: dict[int, Any] = {}
        for inputs, _ in DataLoader(dataset, batch_size=BATCH):
            for row in torch.softmax(net(inputs), -1).cpu().numpy():
                rows[len(rows)] = row.tolist()
        return rows

    generator = FirstOrderDataGenerator(net, batch_size=BATCH, output_mode="logits", runner="onnx")
    return former, lambda: dict(generator.generate_distributions(dataset, progress=False))


def in_jax() -> tuple[Path, Path]:
    """The former loop over lists of samples under ``jit``, and the JAX module's generator."""
    import jax
    import jax.numpy as jnp
    from jax import lax

    from fo_onnx.data_generator.jax_first_order_generator import FirstOrderDataGenerator

    convolutions, (matrix, bias) = weights()

    @jax.jit
    def model(x: Any) -> Any:
        for kernel, offset in convolutions:
            x = lax.conv(x, jnp.asarray(kernel), (1, 1), "SAME") + offset[None, :, None, None]
            x = lax.reduce_window(jax.nn.relu(x), -jnp.inf, lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID")
        return x.reshape(x.shape[0], -1) @ matrix + bias

    dataset = samples()

    def former() -> dict[int, Any]:
        rows: dict[int, Any] = {}
        for start in range(0, SAMPLES, BATCH):
            batch = [dataset[i][0] for i in range(start, min(start + BATCH, SAMPLES))]
            probs = jax.nn.softmax(model(jnp.array(batch, dtype=jnp.float32)), axis=-1)
            for i in range(len(batch)):
                rows[start + i] = probs[i]
        return rows

    generator = FirstOrderDataGenerator(model, batch_size=BATCH, output_mode="logits", runner="onnx")
    return former, lambda: dict(generator.generate_distributions(dataset, progress=False))


def in_tensorflow() -> tuple[Path, Path]:
    """The former loop over a ``tf.data`` pipeline, eagerly, and the TensorFlow module's generator."""
    import tensorflow as tf

    from fo_onnx.data_generator.tensorflow_generator import TensorFlowDataGenerator

    convolutions, (matrix, bias) = weights()
    x, y = data()
    layers: list[Any] = [tf.keras.Input((SIDE, SIDE, 3))]
    for kernel, _ in convolutions:
        layers += [
            tf.keras.layers.Conv2D(kernel.shape[0], 3, padding="same", activation="relu"),
            tf.keras.layers.MaxPool2D(),
        ]
    # Channels are last here, and first where the matrix was made for.
    layers += [tf.keras.layers.Permute((3, 1, 2)), tf.keras.layers.Flatten(), tf.keras.layers.Dense(CLASSES)]
    model = tf.keras.Sequential(layers)
    model.set_weights([a for k, o in convolutions for a in (k.transpose(2, 3, 1, 0), o)] + [matrix, bias])
    dataset = tf.data.Dataset.from_tensor_slices((x.transpose(0, 2, 3, 1), y)).batch(BATCH)

    def former() -> dict[int, Any]:
        rows: dict[int, Any] = {}
        for inputs, _ in dataset:
            for row in tf.nn.softmax(model(inputs, training=False), axis=1).numpy():
                rows[len(rows)] = row
        return rows

    generator = TensorFlowDataGenerator(model, dataset, batch_size=BATCH, device="CPU:0", runner="onnx")
    return former, lambda: generator.generate_distributions(progress=False)


def numpy_model(images: Any) -> Array:
    """The net in numpy: windows laid out as rows, and one matrix product for each convolution."""
    convolutions, (matrix, bias) = KEPT
    x = np.asarray(images, np.float32)
    for kernel, offset in convolutions:
        padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (2, 3))
        n, c, h, w = x.shape
        rows = windows.transpose(0, 2, 3, 1, 4, 5).reshape(n * h * w, c * 9)
        x = np.maximum(rows @ kernel.reshape(len(kernel), -1).T + offset, 0).reshape(n, h // 2, 2, w // 2, 2, -1)
        x = x.max(axis=(2, 4)).transpose(0, 3, 1, 2)
    found: Array = x.reshape(len(x), -1) @ matrix + bias
    return found


KEPT = weights()


def agnostic(model: Any, runner: str = "auto") -> tuple[Path, Path]:
    """The former loop over lists of samples in numpy, and the agnostic module's generator on `model`."""
    from fo_onnx.data_generator.first_order_datagenerator import FirstOrderDataGenerator

    dataset = samples()

    def former() -> dict[int, Any]:
        rows: dict[int, Any] = {}
        for start in range(0, SAMPLES, BATCH):
            logits = numpy_model([dataset[i][0] for i in range(start, min(start + BATCH, SAMPLES))])
            e = np.exp(logits - logits.max(axis=1, keepdims=True))
            for row in e / e.sum(axis=1, keepdims=True):
                rows[len(rows)] = row
        return rows

    generator = FirstOrderDataGenerator(model, batch_size=BATCH, output_mode="logits", runner=runner)
    return former, lambda: dict(generator.generate_distributions(dataset, progress=False))


class _Samples:
    """A dataset in plain Python."""

    def __init__(self) -> None:
        self._x, self._y = data()

    def __len__(self) -> int:
        return len(self._x)

    def __getitem__(self, i: int) -> tuple[Array, int]:
        return self._x[i], int(self._y[i])


def samples() -> _Samples:
    """The samples as a dataset in plain Python."""
    return _Samples()


ROWS: dict[str, Callable[[], tuple[Path, Path]]] = {
    "PyTorch": in_torch,
    "JAX": in_jax,
    "TensorFlow": in_tensorflow,
    "agnostic, a callable": lambda: agnostic(numpy_model),
    "agnostic, exportable": lambda: agnostic(torch_net(), "onnx"),
}


def run_row(name: str, turns: int) -> dict[str, Any]:
    """Both ways of one row, compared, then timed in turns."""
    former, engine = ROWS[name]()
    begun = time.perf_counter()
    ours = engine()
    first_s = time.perf_counter() - begun
    theirs = former()
    worst = max(float(0.5 * np.abs(np.asarray(ours[i]) - np.asarray(theirs[i])).sum()) for i in range(SAMPLES))
    if len(ours) != SAMPLES or worst > 1e-4:
        sys.exit(f"{name}: {len(ours)} rows, total variation up to {worst:.1e}; nothing was timed.")
    timed = take_turns(name, engine, former, turns=turns, warmups=0)
    return {"a_s": timed.a_s, "b_s": timed.b_s, "first_s": first_s, "max_tv": worst}


def memory_of(name: str, way: str) -> float:
    """Megabytes by which resident memory grows at most while one way is run once, looked at every millisecond."""
    import psutil

    former, engine = ROWS[name]()
    process, ended = psutil.Process(), threading.Event()
    before = most = process.memory_info().rss

    def watch() -> None:
        nonlocal most
        while not ended.wait(0.001):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    rows = (engine if way == "engine" else former)()
    ended.set()
    watcher.join()
    assert len(rows) == SAMPLES
    return (most - before) / 2**20


def _child(cache: str, *arguments: str) -> Any:
    command = [sys.executable, "-m", "benchmarks.bench_guide", *arguments]
    environment = {**os.environ, **KEEPING_PAGES, "FO_ONNX_CACHE_DIR": cache, "TF_CPP_MIN_LOG_LEVEL": "3"}
    found = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if found.returncode:
        sys.exit(found.stderr[-2000:])
    return json.loads(found.stdout.splitlines()[-1])


def main() -> None:
    """Prints the table; exit code 1 where the engine is slower than it is to be."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--row", choices=ROWS)
    parser.add_argument("--memory", choices=("former", "engine"))
    arguments = parser.parse_args()
    if arguments.row is not None:
        one = (
            memory_of(arguments.row, arguments.memory) if arguments.memory else run_row(arguments.row, arguments.turns)
        )
        print(json.dumps(one))
        return
    print(f"{SAMPLES:,} samples, {CLASSES} classes, batch {BATCH}; seconds, and the growth of peak memory in MB")
    print(f"{'':<22}{'former':>8}{'engine':>8}{'ratio':>7}  (min to max)   {'first run':>9}{'former':>9}{'engine':>9}")
    comparisons, more, slow = [], {}, []
    with tempfile.TemporaryDirectory() as cache:
        for name in ROWS:
            found = _child(cache, "--row", name, "--turns", str(arguments.turns))
            memory = {way: _child(cache, "--row", name, "--memory", way) for way in ("former", "engine")}
            timed = Comparison(name, tuple(found["a_s"]), tuple(found["b_s"]))
            comparisons.append(timed)
            more[name] = {"first_s": found["first_s"], "max_tv": found["max_tv"], "memory_mb": memory}
            engine, former = (float(np.median(s)) for s in (timed.a_s, timed.b_s))
            print(
                f"{name:<22}{former:>8.2f}{engine:>8.2f}{timed.ratio.median:>7.2f}  ({timed.ratio.low:.2f} to {timed.ratio.high:.2f})   "
                f"{found['first_s']:>9.2f}{memory['former']:>9.0f}{memory['engine']:>9.0f}", flush=True,
            )  # fmt: skip
            if timed.ratio.median < LIMITS.get(name, 1.0):
                slow.append(f"{name} ({timed.ratio.median:.2f})")
    path = write("guide", comparisons, turns=arguments.turns, rows=more)
    print(f"written to {path.name}; {environment()['processor']}")
    if slow:
        sys.exit(f"slower than they are to be: {', '.join(slow)}")


if __name__ == "__main__":
    main()
