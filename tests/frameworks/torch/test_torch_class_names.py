"""The classes of transformers' models are called as their config says, and labels meet their columns by these names."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo

torch = pytest.importorskip("torch")
transformers = pytest.importorskip("transformers", minversion="5.0")
from fo_onnx_torch.class_names import class_names_of  # noqa: E402
from torch import nn  # noqa: E402
from torch_nets import make, normal  # noqa: E402
from transformers.modeling_outputs import SequenceClassifierOutput  # noqa: E402

NAMES = ("neg", "neutral", "pos")
OTHER_ORDER = ("pos", "neg", "neutral")
X = normal(60, 6)


class Classifier(transformers.PreTrainedModel):
    """A user's own model with a config of transformers."""

    config_class = transformers.PretrainedConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.out = nn.Linear(6, config.num_labels)
        self.post_init()

    def forward(self, x: torch.Tensor) -> Any:
        return SequenceClassifierOutput(logits=self.out(x) * 4)


class Within(nn.Module):
    """Holds a model of transformers and its config, and orders the columns in its own way."""

    def __init__(self, net: Any) -> None:
        super().__init__()
        self.net, self.config = net, net.config

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.net(x).logits.flip(1)


def classifier(id2label: Any = None, columns: int = 3) -> Classifier:
    torch.manual_seed(0)
    net = Classifier(transformers.PretrainedConfig(num_labels=columns)).eval()
    nn.init.normal_(net.out.weight)
    net.config.id2label = dict(enumerate(NAMES)) if id2label is None else id2label
    return net


def best_columns(net: Any) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(X)).logits.argmax(1).numpy()


def dataset(columns: np.ndarray, own: tuple[str, ...], order: tuple[str, ...], **inputs: Any) -> Any:
    """Return a dataset whose labels are these columns' names, counted in another order."""
    hf = pytest.importorskip("datasets")
    codes = [order.index(own[column]) for column in columns]
    rows = hf.Dataset.from_dict({**{k: v.tolist() for k, v in inputs.items()}, "label": codes})
    return rows.cast_column("label", hf.ClassLabel(names=list(order)))


# Labels by name ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["native", "onnx"])
def test_class_labels_in_another_order(runner: str) -> None:
    net = classifier()
    dists = fo.generate(net, dataset(best_columns(net), NAMES, OTHER_ORDER, x=X), runner=runner)
    assert dists.metrics()["accuracy"] == 1
    assert dists.class_names == NAMES


def test_class_labels_in_another_order_for_bert() -> None:
    case = make("bert")
    case.model.config.id2label = dict(enumerate(NAMES))
    with torch.no_grad():
        best = case.model(**{k: torch.from_numpy(v) for k, v in case.data.items()}).logits.argmax(1).numpy()
    assert len(set(best)) > 1
    dists = fo.generate(case.model, dataset(best, NAMES, OTHER_ORDER, **case.data), runner="native")
    assert dists.metrics()["accuracy"] == 1
    assert dists.class_names == NAMES


def test_labels_as_text() -> None:
    net = classifier()
    dists = fo.generate(net, X, labels=np.array(NAMES)[best_columns(net)], runner="native")
    assert dists.metrics()["accuracy"] == 1


def test_other_integers_are_numbers_of_columns() -> None:
    net = classifier()
    dists = fo.generate(net, X, labels=best_columns(net), runner="native")
    assert dists.metrics()["accuracy"] == 1


def test_an_exported_file_has_the_names(tmp_path: Path) -> None:
    net = classifier()
    fo.export(net, X, tmp_path / "net.onnx")
    model = fo.OnnxModel.open(tmp_path / "net.onnx")
    assert model.spec.class_names == NAMES
    rows = dataset(best_columns(net), NAMES, OTHER_ORDER, x=X)
    assert fo.generate(model, rows).metrics()["accuracy"] == 1


def test_an_exported_file_has_the_names_of_the_caller(tmp_path: Path) -> None:
    net, names = classifier(), ("a", "b", "c")
    model = fo.export(net, X, tmp_path / "net.onnx")
    labels = np.array(names)[best_columns(net)]
    with pytest.raises(fo.OptionError, match="class_names are other than those .*export it again with class_names="):
        fo.generate(model, X, labels=labels, class_names=names)
    model = fo.export(net, X, tmp_path / "net.onnx", class_names=names, overwrite=True)
    assert model.spec.class_names == names
    assert fo.generate(model, X, labels=labels).metrics()["accuracy"] == 1


def test_names_of_the_data_that_the_model_has_not() -> None:
    net = classifier({0: "NEG", 1: "NEUTRAL", 2: "POS"})
    rows = dataset(best_columns(net), NAMES, OTHER_ORDER, x=X)
    with pytest.raises(fo.DataError, match=r"'pos', 'neg', 'neutral', which .* its classes are 'NEG', .*class_names="):
        fo.generate(net, rows, runner="native")
    assert fo.generate(net, rows, runner="native", class_names=NAMES).metrics()["accuracy"] == 1


# Which names hold -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["native", "onnx"])
def test_names_of_the_caller_hold(runner: str) -> None:
    net, names = classifier(), ("a", "b", "c")
    dists = fo.generate(net, X, labels=np.array(names)[best_columns(net)], class_names=names, runner=runner)
    assert dists.class_names == names
    assert dists.metrics()["accuracy"] == 1


@pytest.mark.parametrize("runner", ["native", "onnx"])
@pytest.mark.parametrize("columns", [2, 4])
def test_names_of_another_number_of_columns(columns: int, runner: str) -> None:
    net = classifier(columns=columns)
    assert len(net.config.id2label) == 3
    assert fo.generate(net, X, runner=runner).class_names is None
    order = ("d", "c", "b", "a")[:columns]
    dists = fo.generate(net, dataset(best_columns(net), order, order, x=X), runner=runner)
    assert dists.class_names == order, "those of the data, in their order"
    assert fo.generate(net, X, class_names=order, runner=runner).class_names == order


def test_a_cached_export_gets_the_names_that_hold_now(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("FO_ONNX_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("FO_ONNX_CACHE_GB", "1")
    net = classifier()
    for names, origin in ((NAMES, "new"), (OTHER_ORDER, "cached")):
        net.config.id2label = dict(enumerate(names))
        dists = fo.generate(net, X)
        assert dists.meta["engine"]["export"] == origin
        assert dists.class_names == names


NO_NAMES: dict[str, Any] = {
    "transformers' own": {0: "LABEL_0", 1: "LABEL_1", 2: "LABEL_2"},
    "numbers": {0: "0", 1: "1", 2: "2"},
    "doubled": {0: "neg", 1: "pos", 2: "neg"},
    "one missing": {0: "neg", 1: "neutral", 3: "pos"},
    "from 1 on": {1: "neg", 2: "neutral", 3: "pos"},
    "keys twice": {0: "neg", 1: "neutral", 2: "pos", "2": "positive"},
    "keys of words": {"a": "neg", "b": "neutral", "c": "pos"},
    "below 0": {-1: "neg", 0: "neutral", 1: "pos"},
    "no text": {0: 5, 1: 6, 2: 7},
    "a list": list(NAMES),
    "empty": {},
}


@pytest.mark.parametrize("kind", NO_NAMES)
def test_what_names_no_classes(kind: str) -> None:
    assert class_names_of(classifier(NO_NAMES[kind])) is None


@pytest.mark.parametrize("id2label", [{2: "pos", 0: "neg", 1: "neutral"}, {"0": "neg", "1": "neutral", "2": "pos"}])
def test_names_are_in_the_order_of_the_columns(id2label: Any) -> None:
    assert class_names_of(classifier(id2label)) == NAMES


def test_names_that_transformers_gives_are_none() -> None:
    net = classifier(transformers.PretrainedConfig(num_labels=3).id2label)
    rows = dataset(best_columns(net), OTHER_ORDER, OTHER_ORDER, x=X)
    assert fo.generate(net, X, runner="native").class_names is None
    assert fo.generate(net, rows, runner="native").class_names == OTHER_ORDER


def test_columns_that_are_choices_have_no_names() -> None:
    config = transformers.BertConfig(
        vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
        id2label=dict(enumerate(NAMES)),
    )  # fmt: skip
    assert class_names_of(transformers.BertForSequenceClassification(config)) == NAMES
    assert class_names_of(transformers.BertForMultipleChoice(config)) is None
    assert class_names_of(transformers.BertForNextSentencePrediction(config)) is None


# Which models have them -------------------------------------------------------------------------------------------


def test_what_only_holds_such_a_model_has_no_names() -> None:
    net = classifier()
    for model in (Within(net), lambda x: net(x).logits, functools.partial(net), net.forward):
        dists = fo.generate(model, X, runner="native")
        assert dists.meta["model"]["framework"] == "torch"
        assert dists.class_names is None


def test_what_is_only_wrapped_by_torch_has_them() -> None:
    net = classifier()
    for model in (torch.compile(net, backend="eager"), nn.DataParallel(net)):
        assert fo.generate(model, X, runner="native").class_names == NAMES


def test_half_precision_keeps_them() -> None:
    assert fo.generate(classifier().to(torch.bfloat16), X, runner="native").class_names == NAMES


def test_an_output_transform_keeps_as_many() -> None:
    net = classifier()

    def normalised(raw: np.ndarray) -> np.ndarray:
        return np.asarray(torch.softmax(torch.from_numpy(raw), 1))

    for runner in ("native", "onnx"):
        same = fo.generate(net, X, runner=runner, output_transform=normalised)
        assert same.class_names == NAMES
        pairs = fo.generate(net, X, runner=runner, output_transform=lambda raw: normalised(raw[:, :2]))
        assert pairs.class_names is None
