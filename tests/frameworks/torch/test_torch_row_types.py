"""Rows reach a torch model as they are: float64, half precision, complex numbers; what no row can be is refused."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation

torch = pytest.importorskip("torch")
import torch_cases  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import TensorDataset  # noqa: E402
from torch_nets import ROWS, Clock, Mlp, Radio, complex_rows, normal, times, truth  # noqa: E402

X = normal(ROWS, 8)
X_TENSOR = torch.ones(3, 8)


def probs_of(function: Callable[..., Any], *rows: np.ndarray) -> np.ndarray:
    with torch.no_grad():
        return torch.softmax(function(*map(torch.from_numpy, rows)).double(), 1).numpy()


# float64 ----------------------------------------------------------------------------------------------------------


def test_times_in_float64_are_not_rounded(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net, seconds = Clock().eval(), times(ROWS)
    expected = probs_of(net, seconds)
    assert row_spread(expected) > 0.05
    rounded = probs_of(net, seconds.astype(np.float32))
    assert total_variation(expected, rounded).max() > 0.1, "rounding shows"

    model = fo.export(net, seconds, tmp_path / "clock.onnx")

    assert model.spec.inputs[0].dtype == "float64"
    for dists in (
        fo.generate(net, seconds, runner="native"),
        fo.generate(net, seconds, runner="onnx"),
        fo.generate(model, seconds),
    ):
        assert total_variation(expected, dists.probs).max() < 1e-5


class TimeAndFeatures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.clock = Mlp(), Clock()

    def forward(self, x: torch.Tensor, seconds: torch.Tensor) -> torch.Tensor:
        return self.net(x) + self.clock(seconds)


def test_of_two_inputs_each_is_taken_as_it_can_be() -> None:
    torch.manual_seed(0)
    net, x, seconds = TimeAndFeatures().eval(), X.astype(np.float64), times(ROWS)
    expected = probs_of(net, X, seconds)
    for runner in ("native", "onnx"):
        dists = fo.generate(net, (x, seconds), runner=runner)
        assert total_variation(expected, dists.probs).max() < 1e-5


def test_a_layer_in_float32_gets_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Mlp().eval()
    model = fo.export(net, X.astype(np.float64), tmp_path / "net.onnx")
    assert model.spec.inputs[0].dtype == "float32"
    assert total_variation(probs_of(net, X), fo.generate(net, X.astype(np.float64), runner="native").probs).max() < 1e-6


def test_the_dtype_is_decided_once_on_the_first_rows() -> None:
    torch.manual_seed(0)
    net, seconds = Clock().eval(), times(ROWS)
    with fo.Engine(net, runner="native") as engine:
        engine.predict(seconds)
        whole = engine.predict(np.float32([1.7e9 + 128]))
    assert total_variation(probs_of(net, np.float64([1.7e9 + 128])), whole).max() < 1e-6


def test_a_model_in_float64_takes_float32() -> None:
    torch.manual_seed(0)
    net = Mlp().eval().double()
    for runner in ("native", "onnx"):
        dists = fo.generate(net, X, runner=runner)
        assert total_variation(probs_of(net, X.astype(np.float64)), dists.probs).max() < 1e-5


def test_what_torch_computes_in_float64_is_float64_in_onnx_as_well() -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 4)

    class Elementwise(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x[:, :, None] * weight).sum(1)

    rows = X.astype(np.float64)
    for runner in ("native", "onnx"):
        dists = fo.generate(Elementwise().eval(), rows, runner=runner)
        assert total_variation(probs_of(Elementwise(), rows), dists.probs).max() < 1e-6


def test_a_dtype_that_torch_has_not() -> None:
    with pytest.raises(fo.DataError, match=r"the rows are .*, which torch has not\. Convert them"):
        fo.generate(Mlp().eval(), X.astype(np.longdouble))


# Integers ---------------------------------------------------------------------------------------------------------

COUNTS = (normal(ROWS, 8) * 10).astype(np.int64)


def linear() -> nn.Module:
    return nn.Linear(8, 4)


def convolution() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 2), nn.Flatten(), nn.Linear(4, 4))


def looks_up() -> nn.Module:
    return nn.Sequential(nn.Embedding(60, 2), nn.Flatten(), nn.Linear(16, 4))


@pytest.mark.parametrize("dtype", [np.int64, np.int32, np.uint8, bool])
@pytest.mark.parametrize(
    "make_net",
    [linear, convolution, lambda: nn.BatchNorm1d(8), lambda: nn.LayerNorm(8), lambda: linear().double()],
    ids=["linear", "convolution", "batch norm", "layer norm", "float64"],
)
def test_integers_are_not_made_floats_without_a_word(make_net: Callable[[], Any], dtype: type) -> None:
    torch.manual_seed(0)
    net = make_net().eval()
    rows = COUNTS.astype(dtype).reshape((-1, 2, 2, 2) if isinstance(net, nn.Sequential) else (-1, 8))
    for data in (rows, TensorDataset(torch.from_numpy(rows))):
        with pytest.raises(
            fo.DataError, match=r"Convert them, for example .*np\.asarray\(x, 'float32'\), scaled as the model was"
        ) as caught:
            fo.generate(net, data, output="logits")
        assert "axes" not in str(caught.value)
        # The way out.
        dists = fo.generate(
            net, data, transform=lambda x: np.asarray(x, "float32") / 8, runner="native", output="logits"
        )
        expected = probs_of(lambda x: net(x.to(next(net.parameters()).dtype)), rows.astype(np.float32) / 8)
        assert total_variation(expected, dists.probs).max() < 1e-6


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.uint8, np.int16])
def test_ids_of_another_dtype(dtype: type) -> None:
    net, ids = looks_up().eval(), np.abs(COUNTS)
    with pytest.raises(fo.DataError, match=r"np\.asarray\(x, 'int64'\)\.$"):
        fo.generate(net, ids.astype(dtype))
    converted = fo.generate(net, ids.astype(dtype), transform=lambda x: np.asarray(x, "int64"), runner="native")
    assert total_variation(probs_of(net, ids), converted.probs).max() < 1e-6


class PixelsAndIds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.table = linear(), looks_up()

    def forward(self, pixels: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
        return self.net(pixels) + self.table(ids)


def test_integers_of_several_inputs() -> None:
    net, pixels, ids = PixelsAndIds().eval(), COUNTS.astype(np.uint8), np.abs(COUNTS)
    data = {"pixels": pixels, "ids": ids}
    with pytest.raises(
        fo.DataError, match=r"Convert 'pixels' or 'ids' to float32, scaled .* gets all inputs of a row\.$"
    ):
        fo.generate(net, data)
    dists = fo.generate(
        net, data, transform=lambda row: row | {"pixels": row["pixels"].astype("float32")}, runner="native"
    )
    assert total_variation(probs_of(net, pixels.astype(np.float32), ids), dists.probs).max() < 1e-6


# Half precision ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["half_old_weight_norm", "half_pruned"])
@pytest.mark.parametrize("runner", ["native", pytest.param("onnx", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::FutureWarning")  # of the older weight_norm
def test_half_precision_whose_hooks_compute_a_weight(name: str, runner: str) -> None:
    case = torch_cases.CASES[name]()
    expected = truth(case)
    assert row_spread(expected) > 0.05

    dists = fo.generate(case.model, case.data, runner=runner)

    assert total_variation(expected, dists.probs).max() < 0.05
    assert total_variation(truth(case), expected).max() == 0, "it runs on as before"


class Locked(Mlp):
    def __init__(self) -> None:
        super().__init__()
        self.lock, self.generator = threading.Lock(), torch.Generator()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with self.lock:
            return super().forward(x)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_what_cannot_be_copied_runs_as_it_is(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    net = Locked().eval().to(dtype)
    expected = probs_of(lambda x: net(x.to(dtype)), X)
    with pytest.warns(fo.FallbackWarning, match="ONNX needs a copy in float32, which could not be made: TypeError"):
        dists = fo.generate(net, X)
    assert total_variation(expected, dists.probs).max() < 1e-6
    assert fo.generate(net, X, runner="native").meta["runner"]["reason"] is None


class CastsItself(nn.Linear):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x.to(torch.bfloat16)) * 4


def test_a_copy_in_float32_that_does_not_run_is_not_used() -> None:
    torch.manual_seed(0)
    net = CastsItself(8, 4).eval().to(torch.bfloat16)
    with pytest.warns(fo.FallbackWarning, match="must have the same dtype"):
        dists = fo.generate(net, X)
    assert total_variation(probs_of(net, X), dists.probs).max() < 1e-6
    # So is the copy of a function, whose closure has the module itself.
    assert total_variation(probs_of(net, X), fo.generate(lambda x: net(x), X, runner="native").probs).max() < 1e-6


def test_tensors_that_are_plain_attributes_are_in_float32_in_the_copy() -> None:
    class Weighted(Mlp):
        def __init__(self) -> None:
            super().__init__()
            self.factors = torch.full((8,), 1.5, dtype=torch.bfloat16)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x @ torch.diag(self.factors))

    torch.manual_seed(0)
    net = Weighted().eval().to(torch.bfloat16)
    dists = fo.generate(net, X, runner="onnx")
    assert total_variation(probs_of(lambda x: net(x.bfloat16()), X), dists.probs).max() < 0.1
    assert 0 < dists.meta["parity"]["original_gap"] < 0.1
    assert net.factors.dtype is torch.bfloat16


# Complex numbers, and what no row can be --------------------------------------------------------------------------


@pytest.mark.parametrize("convert", [lambda z: z, torch.from_numpy, lambda z: z.astype(np.complex128)])
def test_complex_rows_run_natively(convert: Callable[[np.ndarray], Any]) -> None:
    torch.manual_seed(0)
    net, rows = Radio().eval(), complex_rows(ROWS)
    with pytest.warns(fo.FallbackWarning, match="takes complex numbers, which ONNX Runtime has not"):
        dists = fo.generate(net, convert(rows))
    assert total_variation(probs_of(net, rows), dists.probs).max() < 1e-6
    rows[3, 2] = np.nan
    assert fo.generate(net, rows, runner="native", on_error="skip").meta["rows"]["skipped"] == 1


def test_complex_rows_into_weights_of_another_width() -> None:
    class Complex(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Linear(8, 4, dtype=torch.complex64)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(x).abs() * 4

    net, rows = Complex().eval(), complex_rows(ROWS)
    with pytest.raises(fo.OutputError, match="gives complex numbers; class scores, real numbers"):
        fo.generate(net.out, rows)
    dists = fo.generate(net, rows.astype(np.complex128), runner="native")
    assert total_variation(probs_of(net, rows), dists.probs).max() < 1e-6


BAD_TENSORS: dict[str, tuple[Callable[[], Any], str]] = {
    "nested": (lambda: torch.nested.nested_tensor([X_TENSOR[:3], X_TENSOR[:2]]), "pad them"),
    "jagged": (lambda: torch.nested.nested_tensor([X_TENSOR[:3], X_TENSOR[:2]], layout=torch.jagged), "pad them"),
    "masked": (lambda: torch.masked.masked_tensor(torch.ones(3, 8), torch.ones(3, 8) > 0), "Fill what is masked"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(3, 8), 0.1, 0, torch.qint8), "data.dequantize()"),
    "meta": (lambda: torch.empty(3, 8, device="meta"), "no values"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BAD_TENSORS)
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")  # torch's, of what it makes here
def test_tensors_that_are_no_rows(kind: str) -> None:
    make, cure = BAD_TENSORS[kind]
    named = "nested" if kind == "jagged" else kind
    for data in (make(), (make(),), {"x": make()}):
        with pytest.raises(fo.DataError, match=rf"the data hold a {named} tensor") as caught:
            fo.generate(Mlp().eval(), data)
        assert cure in str(caught.value)
    if kind in ("masked", "quantised"):
        with pytest.raises(fo.DataError, match=rf"the data hold a {named} tensor"):
            fo.generate(Mlp().eval(), TensorDataset(make()))


def test_weights_without_values() -> None:
    with pytest.raises(fo.ModelError, match=r"weights without values, on the device 'meta'.*assign=True"):
        fo.generate(nn.Linear(8, 4, device="meta"), X)


# Partials ---------------------------------------------------------------------------------------------------------


def test_a_partial_of_a_module_is_the_modules() -> None:
    torch.manual_seed(0)
    net = torch_cases.Scaled().train()
    once = functools.partial(net, factor=1.5)
    for model, data in (
        (once, X),
        (functools.partial(functools.partial(net), factor=1.5), X),
        (functools.partial(torch.compile(net, backend="eager"), factor=1.5), X),
        (once, {"x": X}),
    ):
        dists = fo.generate(model, data, runner="native")
        assert dists.meta["model"]["framework"] == "torch"
        assert net.training
        net.eval()
        assert total_variation(probs_of(once, X), dists.probs).max() < 1e-6
        net.train()
    dists = fo.generate(once, X, runner="onnx")
    net.eval()
    assert total_variation(probs_of(once, X), dists.probs).max() < 1e-5
