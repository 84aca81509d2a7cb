"""Which columns of the data a torch model gets: those that it names, no text, and a lone column of any name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.distributions.probabilities import total_variation

torch = pytest.importorskip("torch")
from fo_onnx_torch.detect import signature_of  # noqa: E402
from torch import nn  # noqa: E402
from torch_nets import Mlp, make, normal, scaled, scripted, tokens, truth  # noqa: E402

ROWS = 40


class Classifies(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.out = nn.Embedding(100, 8), scaled(nn.Linear(8, 4), 6)

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None) -> torch.Tensor:
        x = self.embedding(input_ids)
        shares = torch.ones(x.shape[:2]) if attention_mask is None else attention_mask
        return self.out((x * shares[..., None]).sum(1) / shares.sum(1, keepdim=True))


class PassesOn(nn.Module):
    """Names one input, and passes the others on."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Classifies()

    def forward(self, input_ids: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        return self.net(input_ids, **kwargs)


class LooksUp(nn.Module):
    """Takes a dict, of which it uses one entry."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Mlp()

    def forward(self, batch: Any) -> torch.Tensor:
        return self.net(batch["image"])


class Options(Mlp):
    """One input, and options that are none."""

    def forward(self, x: torch.Tensor, factor: float = 1.0, **kwargs: Any) -> torch.Tensor:
        return super().forward(x) * factor


def columns() -> dict[str, Any]:
    mask = np.ones((ROWS, 6), np.int64)
    mask[::2, 4:] = 0
    return {"text": [f"text {i}" for i in range(ROWS)], "input_ids": tokens(ROWS, 6), "attention_mask": mask}


def softmax(logits: Any) -> Any:
    return torch.softmax(logits.detach().double(), 1).numpy()


@pytest.mark.parametrize("kind", ["arrays", "samples", "dataset"])
def test_text_is_left_out_and_numbers_are_passed_on(kind: str) -> None:
    torch.manual_seed(0)
    net, data = PassesOn().eval(), columns()
    ids, mask = (torch.from_numpy(data[name]) for name in ("input_ids", "attention_mask"))
    expected = softmax(net(ids, attention_mask=mask))
    rows: Any = {**data, "text": np.array(data["text"])}
    if kind != "arrays":
        rows = [{name: column[i] for name, column in data.items()} for i in range(ROWS)]
    if kind == "dataset":
        lists = {name: column if name == "text" else column.tolist() for name, column in data.items()}
        rows = pytest.importorskip("datasets").Dataset.from_dict(lists)

    dists = fo.generate(net, rows)

    assert dists.meta["runner"]["kind"] == "onnx"
    assert total_variation(expected, dists.probs).max() < 1e-5


def test_columns_that_a_model_of_transformers_does_not_name_are_left_out(tmp_path: Any) -> None:
    pytest.importorskip("transformers", minversion="5.0")
    case = make("bert")
    assert signature_of(case.model) is not None, "its **kwargs are options"
    count = len(case.data["input_ids"])
    data = case.data | {"text": np.array(["a"] * count), "idx": np.arange(count)}

    model = fo.export(case.model, data, tmp_path / "bert.onnx")

    assert [i.name for i in model.spec.inputs] == list(case.data)
    assert total_variation(truth(case), fo.generate(model, data).probs).max() < 1e-5


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("kind", [Mlp, Options, LooksUp])
def test_a_lone_column_is_the_one_input(kind: type[nn.Module], dtype: type) -> None:
    torch.manual_seed(0)
    net, x = kind().eval(), normal(ROWS, 8).astype(dtype)
    expected = softmax((net.net if kind is LooksUp else net)(torch.from_numpy(x.astype(np.float32))))
    samples = [{"image": row, "label": i % 3} for i, row in enumerate(x)]

    dists = fo.generate(net, samples)

    assert dists.meta["runner"]["kind"] == "onnx"
    assert dists.labels.tolist() == [i % 3 for i in range(ROWS)]
    assert total_variation(expected, dists.probs).max() < 1e-5


def test_a_file_exported_for_a_lone_column_has_the_name_of_the_models_input(tmp_path: Any) -> None:
    net, x = Mlp().eval(), normal(ROWS, 8)

    model = fo.export(net, {"image": x}, tmp_path / "net.onnx")

    assert [i.name for i in model.spec.inputs] == ["x"]
    for data in (x, {"image": x}, {"x": x}):
        assert total_variation(softmax(net(torch.from_numpy(x))), fo.generate(model, data).probs).max() < 1e-5


def test_a_model_that_takes_the_column_in_no_form_is_said_to() -> None:
    with pytest.raises(fo.errors.DataError, match=r"running Mlp in torch on x: float32 \(40, 7\) failed: .*7.*8"):
        fo.generate(Mlp().eval(), {"image": normal(ROWS, 7)})


def test_the_signature_of_others_with_any_keywords_is_not_known() -> None:
    assert signature_of(PassesOn()) is None
    assert signature_of(Classifies()) == InputSignature(("input_ids",), ("attention_mask",))


class Subtracts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Linear(3, 4), nn.Linear(2, 4)

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return self.left(x) - self.right(y)


@pytest.mark.parametrize("runner", ["auto", "native"])
@pytest.mark.parametrize("by_keywords", [False, True])
def test_an_exported_program_takes_columns_by_name_however_it_was_called(by_keywords: bool, runner: str) -> None:
    net = Subtracts().eval()
    x, y = (np.random.default_rng(n).normal(size=(ROWS, n)).astype(np.float32) for n in (3, 2))
    example = tuple(torch.randn(8, n) for n in (3, 2))
    batch = {0: torch.export.Dim("batch")}
    arguments = ((), dict(zip("xy", example, strict=True))) if by_keywords else (example, {})
    program = torch.export.export(net, *arguments, dynamic_shapes={"x": batch, "y": batch})
    with torch.no_grad():
        expected = torch.softmax(net(torch.from_numpy(x), torch.from_numpy(y)), 1).numpy()
    for data in ({"x": x, "y": y}, {"y": y, "x": x}):
        dists = fo.generate(program, data, runner=runner, output="logits", progress=False)
        np.testing.assert_allclose(dists.probs, expected, atol=1e-6)


class Pooled(nn.Module):
    """As `Classifies`, of which each input must be there."""

    def __init__(self) -> None:
        super().__init__()
        self.net = Classifies()

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        return self.net(input_ids, attention_mask)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("order", [("input_ids", "attention_mask"), ("attention_mask", "input_ids")])
def test_a_script_module_takes_columns_by_name_in_any_order(order: tuple[str, str]) -> None:
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    columns = {
        "input_ids": rng.integers(0, 100, (ROWS, 6)),
        "attention_mask": rng.integers(0, 2, (ROWS, 6)).astype(np.float32) + 0.1,
    }
    net = Pooled().eval()
    dists = fo.generate(scripted(net), {name: columns[name] for name in order}, runner="onnx")
    with torch.no_grad():
        expected = torch.softmax(net(*map(torch.from_numpy, columns.values())), 1)
    np.testing.assert_allclose(dists.probs, expected.numpy(), atol=1e-6)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_script_module_needs_all_its_arguments_to_become_onnx() -> None:
    with pytest.raises(
        fo.ExportError, match=r"needs all arguments of a ScriptModule, and 'attention_mask' of .* is not given"
    ):
        fo.generate(scripted(Classifies().eval()), np.zeros((ROWS, 6), np.int64), runner="onnx")
