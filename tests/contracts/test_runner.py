"""The contract of runners. A new runner joins by one `Kind` in `KINDS`.

Every check is a function of a runner and of the truth about its rows, so that it can also be run against runners that
are wrong on purpose.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx_graphs import FIRST, SECOND, classifier, endless, logits_of, softmax64

from fo_onnx.contracts.options import ModelOptions, OutputOptions, RunOptions
from fo_onnx.contracts.runner import Runner, RunOutput
from fo_onnx.control.run_control import RunControl, RunEnded
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation
from fo_onnx.engine.choose_runner import choose_runner
from fo_onnx.errors import RunError
from fo_onnx.models.callables import CallableExporter
from fo_onnx.models.onnx_model import OnnxModel
from fo_onnx.runtime.onnx_runner import OnnxRunner
from fo_onnx.runtime.opened import OpenedModel
from fo_onnx.runtime.request import RunRequest

ROWS = np.random.default_rng(3).standard_normal((23, 5)).astype(np.float32)
NAMES = {"x": ROWS}


@dataclass(frozen=True)
class Kind:
    """One kind of runner.

    Attributes:
        open: Opens it over a model in a folder, for batches of a size.
        probs: Distributions (n, k), float64, of rows (n, 5).
        logits: Logits (n, k), float64, where the runner keeps them.
    """

    open: Callable[[Path, int], OpenedModel]
    probs: Callable[[np.ndarray], np.ndarray] = lambda rows: softmax64(logits_of(rows))
    logits: Callable[[np.ndarray], np.ndarray] | None = None


def request(model: Any, exporter: Any, batch_size: int, output: OutputOptions, **run: Any) -> RunRequest:
    options = RunOptions(device="cpu", batch_size=batch_size, **run)
    return RunRequest(model, exporter, {"0": ROWS}, len(ROWS), ModelOptions(), output, options)


def onnx_kind(ending: tuple[str, ...] = (), *, batch: int | str = "n", output: OutputOptions | None = None) -> Any:
    def open_runner(folder: Path, batch_size: int) -> OpenedModel:
        path = classifier(folder / "model.onnx", ending, batch=batch)
        return choose_runner(request(OnnxModel.open(path), None, batch_size, output or OutputOptions()))

    return open_runner


def open_binary(folder: Path, batch_size: int) -> OpenedModel:
    path = classifier(folder / "model.onnx", classes=1)
    return choose_runner(request(OnnxModel.open(path), None, batch_size, OutputOptions()))


def open_callable(folder: Path, batch_size: int) -> OpenedModel:
    def classify(x: np.ndarray) -> np.ndarray:
        return np.tanh(x @ FIRST) @ SECOND

    return choose_runner(request(classify, CallableExporter(), batch_size, OutputOptions(keep_logits=True)))


def open_torch(runner: str) -> Any:
    def open_runner(folder: Path, batch_size: int) -> OpenedModel:
        torch = pytest.importorskip("torch")
        from fo_onnx_torch.plugin import TorchExporter

        net = torch.nn.Sequential(torch.nn.Linear(5, 16, False), torch.nn.Tanh(), torch.nn.Linear(16, 3, False))
        with torch.no_grad():
            net[0].weight.copy_(torch.from_numpy(FIRST.T.copy()))
            net[2].weight.copy_(torch.from_numpy(SECOND.T.copy()))
        return choose_runner(request(net, TorchExporter(), batch_size, OutputOptions(), runner=runner))

    return open_runner


def open_jax(runner: str) -> Any:
    def open_runner(folder: Path, batch_size: int) -> OpenedModel:
        jax = pytest.importorskip("jax")
        from fo_onnx_jax.plugin import JaxExporter

        @jax.jit
        def predict(x: Any) -> Any:
            return jax.numpy.tanh(x @ FIRST) @ SECOND

        return choose_runner(request(predict, JaxExporter(), batch_size, OutputOptions(), runner=runner))

    return open_runner


def open_keras(runner: str) -> Any:
    def open_runner(folder: Path, batch_size: int) -> OpenedModel:
        keras = pytest.importorskip("keras")
        from fo_onnx_keras.plugin import KerasExporter

        layers = keras.layers
        net = keras.Sequential([layers.Input((5,)), layers.Dense(16, "tanh", False), layers.Dense(3, use_bias=False)])
        net.set_weights([FIRST, SECOND])
        return choose_runner(request(net, KerasExporter(), batch_size, OutputOptions(), runner=runner))

    return open_runner


def sharpened(raw: np.ndarray) -> np.ndarray:
    return softmax64(3 * raw)


def binary(rows: np.ndarray) -> np.ndarray:
    z = logits_of(rows)[:, :1]
    return softmax64(np.concatenate([np.zeros_like(z), z], axis=1))


KINDS = {
    "foreign file": Kind(onnx_kind()),
    "foreign file that ends in softmax": Kind(onnx_kind(("Softmax",))),
    "foreign file of log-probabilities": Kind(onnx_kind(("LogSoftmax",))),
    "fixed batch of 4": Kind(onnx_kind(batch=4)),
    "fixed batch of 1": Kind(onnx_kind(batch=1)),
    "binary": Kind(open_binary, binary),
    "temperature": Kind(onnx_kind(output=OutputOptions(temperature=2.5)), lambda r: softmax64(logits_of(r) / 2.5)),
    "logits kept": Kind(onnx_kind(output=OutputOptions(keep_logits=True)), logits=logits_of),
    "output_transform": Kind(
        onnx_kind(output=OutputOptions(output_transform=sharpened)), lambda r: softmax64(3 * logits_of(r))
    ),
    "output_transform over a fixed batch": Kind(
        onnx_kind(batch=4, output=OutputOptions(output_transform=sharpened)), lambda r: softmax64(3 * logits_of(r))
    ),
    "callable": Kind(open_callable, logits=logits_of),
    "torch": Kind(open_torch("native")),
    "torch in ONNX": Kind(open_torch("onnx")),
    "keras": Kind(open_keras("native")),
    "keras in ONNX": Kind(open_keras("onnx")),
    "jax": Kind(open_jax("native")),
    "jax in ONNX": Kind(open_jax("onnx")),
}


@pytest.fixture(scope="module", params=KINDS)
def kind(request: pytest.FixtureRequest) -> Kind:
    return KINDS[request.param]


@pytest.fixture(scope="module")
def runner(kind: Kind, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Runner]:
    selection = kind.open(tmp_path_factory.mktemp("runner"), 8)
    yield selection.runners[0]
    selection.close()


def check_rows(runner: Runner, kind: Kind) -> None:
    """Every row is right and in its place, at any batch size."""
    expected = kind.probs(ROWS)
    assert row_spread(expected) >= 0.05, "rows this close together agree with anything"
    for size in (1, 2, 7, 8, 23):
        for start in range(0, len(ROWS), size):
            rows = slice(start, start + size)
            found = runner.run({"0": ROWS[rows]}).probs
            assert found.dtype == np.float32
            assert found.shape == expected[rows].shape, size
            assert total_variation(expected[rows], found).max() < 1e-5, size
            np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)


def check_independent_of_the_batch(runner: Runner, kind: Kind) -> None:
    """A row does not depend on those beside it."""
    whole = runner.run({"0": ROWS}).probs
    order = np.random.default_rng(0).permutation(len(ROWS))
    mixed = runner.run({"0": ROWS[order]}).probs
    assert total_variation(whole[order], mixed).max() < 1e-6
    for i in (0, 11, 22):
        assert total_variation(whole[i : i + 1], runner.run({"0": ROWS[i : i + 1]}).probs).max() < 1e-6
        beside = np.concatenate([ROWS[i : i + 1], 50 * ROWS[:3]])
        assert total_variation(whole[i : i + 1], runner.run({"0": beside}).probs[:1]).max() < 1e-6


def check_same_bits_again(runner: Runner, kind: Kind) -> None:
    first, second = runner.run({"0": ROWS[:8]}).probs.copy(), runner.run({"0": ROWS[:8]}).probs
    assert first.tobytes() == second.tobytes()


def check_results_are_kept(runner: Runner, kind: Kind) -> None:
    """A result does not change when the next batch is run."""
    first = runner.run({"0": ROWS[:8]}).probs
    copy = first.copy()
    runner.run({"0": ROWS[8:16]})
    assert np.array_equal(first, copy)


def check_inputs_stay(runner: Runner, kind: Kind) -> None:
    for rows in (ROWS.copy(), np.asfortranarray(ROWS), ROWS.astype(np.float64), np.repeat(ROWS, 2, axis=0)[::2]):
        before = rows.copy()
        found = runner.run({"0": rows}).probs
        np.testing.assert_array_equal(rows, before)
        assert total_variation(kind.probs(ROWS), found).max() < 1e-5, "in any layout"


def check_logits(runner: Runner, kind: Kind) -> None:
    logits = runner.run({"0": ROWS}).logits
    if kind.logits is None:
        assert logits is None
        return
    assert logits is not None
    assert logits.dtype == np.float32
    np.testing.assert_allclose(logits, kind.logits(ROWS), atol=1e-4)


def check_rows_that_are_no_distribution(runner: Runner, kind: Kind) -> None:
    """They are NaN throughout, and those beside them are as they were."""
    rows = ROWS[:6].copy()
    rows[2, 3] = np.nan
    found = runner.run({"0": rows}).probs
    assert np.isnan(found[2]).all()
    others = [0, 1, 3, 4, 5]
    assert total_variation(kind.probs(ROWS)[others], found[others]).max() < 1e-5


CHECKS: list[Callable[[Runner, Kind], None]] = [
    check_rows, check_independent_of_the_batch, check_same_bits_again, check_results_are_kept, check_inputs_stay,
    check_logits, check_rows_that_are_no_distribution,
]  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda c: c.__name__.removeprefix("check_"))
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_contract(runner: Runner, kind: Kind, check: Any) -> None:
    check(runner, kind)


def test_closed_twice(kind: Kind, tmp_path: Path) -> None:
    selection = kind.open(tmp_path, 4)
    runner = selection.runners[0]
    assert runner.kind in ("onnx", "native")
    assert runner.device == "cpu"
    assert runner.spec.inputs
    runner.close()
    runner.close()
    if isinstance(runner, OnnxRunner):
        with pytest.raises(RunError, match="the engine is closed"):
            runner.run({"0": ROWS})
    selection.close()


def test_probabilities_without_unit_sum_are_nan(tmp_path: Path) -> None:
    """A file whose output is probabilities on the first rows, and something else later."""

    def classify(x: np.ndarray) -> np.ndarray:
        probs = softmax64(logits_of(x))
        probs[x[:, 0] > 100] *= 1.5
        probs[x[:, 1] > 100] -= [0.5, -0.5, 0]
        return probs.astype(np.float32)

    runner = choose_runner(request(classify, CallableExporter(), 8, OutputOptions())).runners[0]
    rows = ROWS[:4].copy()
    rows[1, 0] = rows[2, 1] = 1000

    found = runner.run({"0": rows}).probs

    assert runner.spec.output_kind == "probs"
    assert np.isnan(found[1:3]).all()
    assert np.isfinite(found[[0, 3]]).all()


def test_a_long_run_is_ended_alone(tmp_path: Path) -> None:
    """Whoever ends a run ends what ONNX Runtime does for it, and nothing else in the same session."""
    model = OnnxModel.open(endless(tmp_path / "loop.onnx"))
    rows = np.array([[1, 2, 3], [3, 0, 1]], np.float32)
    options = RunOptions(device="cpu", batch_size=2)
    runner = choose_runner(
        RunRequest(model, None, {"x": rows}, 2, ModelOptions(), OutputOptions("logits"), options)
    ).runners[0]
    assert isinstance(runner, OnnxRunner)
    expected = runner.run({"x": rows}).probs
    errors: list[BaseException] = []
    control = RunControl()

    def work() -> None:
        try:
            with control.entered():
                runner.run({"x": rows * 2**60})
        except RunEnded as err:
            errors.append(err)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    time.sleep(0.3)
    assert thread.is_alive(), "a loop of 2^60 turns takes a while"
    begun = time.monotonic()
    np.testing.assert_array_equal(runner.run({"x": rows}).probs, expected, "another call meanwhile")
    control.stop()
    thread.join(5)

    assert not thread.is_alive()
    assert time.monotonic() - begun < 2
    assert isinstance(errors[0].__cause__, Exception)
    np.testing.assert_array_equal(runner.run({"x": rows}).probs, expected)
    with control.entered(), pytest.raises(RunEnded):
        runner.run({"x": rows})


class Mutant:
    """A runner with one mistake."""

    def __init__(self, right: Runner) -> None:
        self.right, self.spec, self.device, self.kind = right, right.spec, right.device, right.kind
        self.last: np.ndarray | None = None

    def run(self, inputs: Any) -> RunOutput:
        found = self.right.run(inputs)
        probs = np.asarray(self.change(found.probs.copy(), inputs), np.float32)
        return replace(found, probs=probs)

    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        raise NotImplementedError

    def close(self) -> None:
        self.right.close()


class Uniform(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        return np.full_like(probs, 1 / probs.shape[1])


class Shifted(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        return np.roll(probs, 1, axis=0)


class SoftmaxTwice(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        return softmax64(probs)


class WrongTemperature(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        return softmax64(np.log(np.maximum(probs, 1e-30)) / 1.01)


class SwappedColumns(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        return probs[:, [1, 0, *range(2, probs.shape[1])]]


class BatchRepeated(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        if self.last is None or self.last.shape != probs.shape:
            self.last = probs
        return self.last


class LastRowMissing(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        return probs[: max(len(probs) - 1, 1)]


class DependsOnTheBatch(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        return softmax64(np.log(np.maximum(probs, 1e-30)) * (1 + 1e-4 * inputs["0"].max()))


class HidesNan(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        return np.where(np.isnan(probs), np.float32(1 / probs.shape[1]), probs)


class NanSpreads(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        return probs + 0 * probs.sum()


class WritesIntoInputs(Mutant):
    def change(self, probs: np.ndarray, inputs: Any) -> np.ndarray:
        inputs["0"][:] = 0
        return probs


class OneBuffer(Mutant):
    def run(self, inputs: Any) -> RunOutput:
        found = self.right.run(inputs)
        if self.last is None or self.last.shape != found.probs.shape:
            self.last = np.empty_like(found.probs)
        self.last[:] = found.probs
        return replace(found, probs=self.last)


MUTANTS: dict[type[Mutant], str] = {
    Uniform: "rows",
    Shifted: "rows",
    SoftmaxTwice: "rows",
    WrongTemperature: "rows",
    SwappedColumns: "rows",
    BatchRepeated: "rows",
    LastRowMissing: "rows",
    DependsOnTheBatch: "independent_of_the_batch",
    HidesNan: "rows_that_are_no_distribution",
    NanSpreads: "rows_that_are_no_distribution",
    WritesIntoInputs: "inputs_stay",
    OneBuffer: "results_are_kept",
}


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: m.__name__)
@pytest.mark.parametrize("name", ["foreign file", "callable"])
@pytest.mark.filterwarnings("ignore:invalid value encountered:RuntimeWarning")
def test_a_wrong_runner_is_caught(mutant: type[Mutant], name: str, tmp_path: Path, monkeypatch: Any) -> None:
    kind = KINDS[name]
    monkeypatch.setitem(globals(), "ROWS", ROWS.copy())
    check = next(c for c in CHECKS if c.__name__ == f"check_{MUTANTS[mutant]}")
    runner = kind.open(tmp_path, 8).runners[0]
    check(runner, kind)

    with pytest.raises(AssertionError):
        check(mutant(runner), kind)
