"""Every kind of torch model gives in ONNX the rows that torch gives, and is left as it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.contracts.options import ModelOptions, OutputOptions
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation
from fo_onnx.errors import ExportError

torch = pytest.importorskip("torch")
from fo_onnx_torch.detect import unwrap  # noqa: E402
from fo_onnx_torch.modules import FunctionModule, as_module  # noqa: E402
from fo_onnx_torch.plugin import TorchExporter  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import DataLoader  # noqa: E402
from torch_nets import CASES, COVERED_ELSEWHERE, ROWS, Mlp, Tokens, first, make, normal, tokens, truth  # noqa: E402


def state(model: Any) -> list[tuple[Any, ...]]:
    """Everything of a model that a run must leave alone."""
    module = as_module(model)
    owner = getattr(model, "__self__", None)
    parts = [*module.modules(), *(owner.modules() if isinstance(owner, nn.Module) else ())]
    flags = [(m.training,) for m in parts if not isinstance(m, FunctionModule)]
    tensors = [(n, t.detach().clone(), t.requires_grad, t.dtype) for n, t in module.state_dict(keep_vars=True).items()]
    return [*flags, *tensors]


def assert_same_state(before: list[tuple[Any, ...]], after: list[tuple[Any, ...]]) -> None:
    assert len(before) == len(after)
    for old, new in zip(before, after, strict=True):
        for a, b in zip(old, new, strict=True):
            assert torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b, (old[0], a, b)


def copied(rows: Any) -> Any:
    if isinstance(rows, dict):
        return {k: copied(v) for k, v in rows.items()}
    return tuple(map(copied, rows)) if isinstance(rows, tuple) else rows.copy()


def assert_same_rows(a: Any, b: Any) -> None:
    if isinstance(a, dict):
        for k in a:
            assert_same_rows(a[k], b[k])
    elif isinstance(a, tuple):
        for x, y in zip(a, b, strict=True):
            assert_same_rows(x, y)
    else:
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[pytest.mark.slow] if n in COVERED_ELSEWHERE else []) for n in CASES]
)
def test_onnx_gives_torchs_rows(name: str) -> None:
    case = make(name)
    expected = truth(case)
    assert row_spread(expected) >= 0.05, "rows this close together agree with anything"
    before, rows = state(case.model), copied(case.data)

    with fo.Engine(case.model, runner="onnx", batch_size=7, **case.options) as engine:
        dists = engine.generate(case.data)
        alone = engine.predict(first(case.data, 1))
        pair = engine.predict(first(case.data, 2))

    assert dists.meta["runner"] == {"kind": "onnx", "reason": None, "foreign": [], "switched_at": None, "speed": None}
    assert len(dists) == ROWS
    assert total_variation(expected, dists.probs).max() < case.tolerance
    assert total_variation(expected[:1], alone).max() < case.tolerance
    assert total_variation(expected[:2], pair).max() < case.tolerance
    parity = dists.meta["parity"]
    assert parity["passed"]
    assert parity["batch_sizes"] == [7, 1, 2, 3]
    assert parity["max_tv"] < case.tolerance
    assert_same_state(before, state(case.model))
    assert_same_rows(rows, case.data)


@pytest.mark.parametrize("name", ["mlp", pytest.param("two_inputs", marks=pytest.mark.slow)])
def test_the_verb_gives_them_too(name: str, tmp_path: Any) -> None:
    case = make(name)
    expected = truth(case)

    dists = fo.generate(case.model, case.data, out=tmp_path / "rows.parquet")

    assert dists.meta["runner"]["kind"] == "onnx"
    assert total_variation(expected, dists.probs).max() < 1e-5


def test_an_exported_file_takes_any_batch_size(tmp_path: Any) -> None:
    case = make("cnn")
    expected = truth(case)

    model = fo.export(case.model, case.data, tmp_path / "cnn.onnx", class_names=["a", "b", "c", "d"])

    assert model.spec.inputs[0].shape == (None, 3, 8, 8)
    assert model.spec.fixed_batch is None
    assert model.provenance["parity"]["passed"]
    assert not list(tmp_path.glob("*.data")), "a small model is one file"
    for size in (1, 2, 7, ROWS, 100):
        dists = fo.generate(model, case.data, batch_size=size)
        assert total_variation(expected, dists.probs).max() < 1e-5, size
        assert dists.class_names == ("a", "b", "c", "d")


def test_one_row_is_enough_to_export(tmp_path: Any) -> None:
    case = make("cnn")

    model = fo.export(case.model, case.data[:1], tmp_path / "cnn.onnx")

    assert total_variation(truth(case), fo.generate(model, case.data, batch_size=7).probs).max() < 1e-5


@pytest.mark.parametrize("name", ["bert", "tokens"])
def test_sequences_of_other_lengths_than_the_examples(name: str) -> None:
    case = make(name)
    with fo.Engine(case.model, runner="onnx") as engine:
        engine.predict(case.data)
        for length in (1, 5, 20):
            ids = tokens(4, length, seed=length)
            rows = {"input_ids": ids, "attention_mask": np.ones_like(ids)} if name == "bert" else ids
            expected = truth(type(case)(case.model, rows, case.call))
            assert total_variation(expected, engine.predict(rows)).max() < 1e-5, length


def test_batches_that_a_loader_pads_one_by_one() -> None:
    torch.manual_seed(0)
    net = Tokens().eval()
    texts = [torch.from_numpy(tokens(1, 3 + i % 11, seed=i)[0]) for i in range(ROWS)]
    loader = DataLoader(texts, batch_size=5, collate_fn=lambda b: nn.utils.rnn.pad_sequence(b, batch_first=True))
    assert len({b.shape[1] for b in loader}) > 1

    dists = fo.generate(net, loader, runner="onnx")

    with torch.no_grad():
        expected = torch.cat([torch.softmax(net(b).double(), 1) for b in loader]).numpy()
    assert row_spread(expected) >= 0.05
    assert total_variation(expected, dists.probs).max() < 1e-5


@pytest.mark.parametrize("name", ["bfloat16", "float16"])
def test_half_precision_is_compared_with_the_float32_copy(name: str) -> None:
    case = make(name)

    dists = fo.generate(case.model, case.data, runner="onnx")
    native = fo.generate(case.model, case.data, runner="native")

    assert all(p.dtype in (torch.float16, torch.bfloat16) for p in case.model.parameters()), "left as it was"
    with torch.no_grad():
        own = case.model(torch.from_numpy(case.data).to(next(case.model.parameters()).dtype))
    gap = total_variation(truth(case), torch.softmax(own.double(), 1).numpy()).max()
    assert 1e-4 < gap < 0.05, "half precision shows"
    assert dists.meta["parity"]["original_gap"] == pytest.approx(gap, abs=1e-6)
    assert dists.meta["parity"]["max_tv"] < 1e-5, "measured against the float32 copy"
    assert total_variation(truth(case), dists.probs).max() < 1e-5
    assert total_variation(truth(case), native.probs).max() < 1e-6, "the native runner is the float32 copy as well"


def test_a_mixed_training_state_is_left_mixed() -> None:
    case = make("train_mode")
    flags = [m.training for m in case.model.modules()]
    assert len(set(flags)) == 2

    fo.generate(case.model, case.data, runner="onnx")
    fo.generate(case.model, case.data, runner="native")

    assert [m.training for m in case.model.modules()] == flags


def test_training_goes_on_after_a_run() -> None:
    net = Mlp().train()
    rows = normal(ROWS, 8)

    fo.generate(net, rows, runner="onnx")
    fo.generate(net, rows, runner="native")

    net(torch.from_numpy(rows)).sum().backward()
    assert all(p.grad is not None for p in net.parameters())


def test_keywords_in_another_order_stay_with_their_names() -> None:
    case = make("keywords")
    turned = dict(reversed(case.data.items()))

    assert list(turned) != list(case.data)
    dists = fo.generate(case.model, turned, runner="onnx")

    assert total_variation(truth(case), dists.probs).max() < 1e-5


def test_an_exported_file_takes_its_inputs_by_name_and_by_position(tmp_path: Any) -> None:
    case = make("two_inputs")
    model = fo.export(case.model, case.data, tmp_path / "two.onnx")
    left, right = case.data

    by_name = fo.generate(model, {"right": right, "left": left})
    by_position = fo.generate(model, (left, right))

    assert [i.name for i in model.spec.inputs] == ["left", "right"]
    assert total_variation(truth(case), by_name.probs).max() < 1e-5
    assert by_name.equals(by_position)


def test_logits_are_torchs_logits() -> None:
    case = make("mlp")

    dists = fo.generate(case.model, case.data, runner="onnx", keep_logits=True, temperature=2.0)

    with torch.no_grad():
        logits = case.model(torch.from_numpy(case.data))
    assert dists.logits is not None
    np.testing.assert_allclose(dists.logits, logits.numpy(), atol=1e-5)
    cooled = torch.softmax(logits.double() / 2, 1).numpy()
    assert total_variation(cooled, dists.probs).max() < 1e-6


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (nn.Softmax(-1), "probs"),
        (nn.LogSoftmax(1), "log_probs"),
        pytest.param(nn.Softmax(1), "probs", marks=pytest.mark.slow),
        pytest.param(nn.Identity(), "logits", marks=pytest.mark.slow),
    ],
)
def test_the_graph_decides_on_the_output(ending: nn.Module, kind: str, tmp_path: Any) -> None:
    case = make("mlp")

    model = fo.export(nn.Sequential(case.model, ending), case.data, tmp_path / "net.onnx")

    assert model.spec.output_kind == kind
    assert total_variation(truth(case), fo.generate(model, case.data).probs).max() < 1e-5


def test_a_binary_net_gives_two_columns(tmp_path: Any) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(Mlp(classes=1), nn.Sigmoid(), nn.Flatten(0)).eval()
    rows = normal(ROWS, 8)

    dists = fo.generate(net, rows, runner="onnx")

    with torch.no_grad():
        p = net(torch.from_numpy(rows)).double().numpy()
    assert p.shape == (ROWS,)
    expected = np.stack([1 - p, p], axis=1)
    assert row_spread(expected) >= 0.05
    assert total_variation(expected, dists.probs).max() < 1e-6


def test_the_exporter_does_not_parse_its_file(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnx

    def refuse(*args: Any, **options: Any) -> None:
        raise AssertionError("parsed")

    for name in ("load", "load_model", "load_model_from_string", "load_from_string"):
        monkeypatch.setattr(onnx, name, refuse)
    case = make("mlp")
    spec = TorchExporter().export(case.model, {"0": case.data}, tmp_path / "m.onnx", ModelOptions(), OutputOptions())

    assert spec.output.shape == (None, 4)
    monkeypatch.undo()
    assert onnx.load_model(tmp_path / "m.onnx").opset_import[0].version == 18


def test_an_operator_set_that_the_exporter_does_not_write(tmp_path: Any) -> None:
    case = make("scripted")
    with pytest.raises(
        ExportError, match="opset=19 was asked for, and torch.onnx.export gives 18 instead; say opset=18"
    ):
        fo.export(case.model, case.data, tmp_path / "m.onnx", opset=19)
    fo.export(make("mlp").model, case.data, tmp_path / "m.onnx", opset=19)


def test_a_decorated_function_has_the_net_that_it_calls_at_hand() -> None:
    net, rows = Mlp().train(), normal(ROWS, 8)

    @torch.no_grad()
    def decorated(x: torch.Tensor) -> torch.Tensor:
        return net(x)

    dists = fo.generate(decorated, rows)

    assert dists.meta["runner"]["kind"] == "onnx"
    assert net.training
    with torch.no_grad():
        expected = torch.softmax(net.eval()(torch.from_numpy(rows)).double(), 1).numpy()
    assert total_variation(expected, dists.probs).max() < 1e-5


def test_wrappings_are_taken_off() -> None:
    net = Mlp()
    assert unwrap(torch.compile(nn.DataParallel(net), backend="eager")) is net
