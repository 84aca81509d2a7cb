"""Labels meet columns by name, never by position, wherever names are known."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import fo_onnx as fo
from fo_onnx.errors import DataError

X = np.random.default_rng(0).normal(size=(200, 3)).astype(np.float32)
BEST = X.argmax(axis=1)
"""Each row's most probable column: labels of these classes have an accuracy of 1."""


def model(x: np.ndarray) -> np.ndarray:
    return np.asarray(x, np.float32) * 1.0


def accuracy(data: Any, **arguments: Any) -> Any:
    dists = fo.generate(model, data, output="logits", progress=False, **arguments)
    return dists.metrics()["accuracy"]


FORMS: dict[str, Callable[[Any], Any]] = {
    "arrays": lambda y: ((X, y), {}),
    "objects": lambda y: ((X, np.array(y.tolist(), dtype=object)), {}),
    "labels=": lambda y: (X, {"labels": y.tolist()}),
    "pairs": lambda y: (list(zip(X, y, strict=True)), {}),
    "a generator": lambda y: (zip(X, y, strict=True), {}),
    "batches": lambda y: (((X[i : i + 50], y[i : i + 50]) for i in range(0, 200, 50)), {}),
    "dicts": lambda y: ([{"x": x, "label": label} for x, label in zip(X, y, strict=True)], {}),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    "names",
    [["1", "10", "2"], ["01", "02", "03"], ["2", "0", "1"], ["b", "a", "c"], ["-1", "1", "0"], ["a", "1", "-"]],
    ids=" ".join,
)
def test_text(names: list[str], form: str) -> None:
    data, arguments = FORMS[form](np.array(names)[BEST])
    if form == "dicts":
        arguments["input_getter"] = lambda row: row["x"]
    assert accuracy(data, class_names=names, **arguments) == 1


@pytest.mark.parametrize("names", [["1", "10", "2"], ["b", "a", "c"]])
def test_text_of_which_not_every_class_occurs(names: list[str]) -> None:
    rows = BEST != 1
    assert accuracy(X[rows], labels=np.array(names)[BEST[rows]], class_names=names) == 1


@pytest.mark.parametrize("form", [f for f in FORMS if f != "objects"])
@pytest.mark.parametrize("names", [["2", "0", "7"], ["-1", "1", "0"], ["3", "2", "1"]], ids=" ".join)
def test_integers_are_the_classes_of_these_names(names: list[str], form: str) -> None:
    data, arguments = FORMS[form](np.array(names, int)[BEST])
    if form == "dicts":
        arguments["input_getter"] = lambda row: row["x"]
    assert accuracy(data, class_names=names, **arguments) == 1


@pytest.mark.parametrize("form", [f for f in FORMS if f != "objects"])
def test_integers_count_columns_whose_names_are_words(form: str) -> None:
    data, arguments = FORMS[form](BEST)
    if form == "dicts":
        arguments["input_getter"] = lambda row: row["x"]
    assert accuracy(data, class_names=["b", "a", "c"], **arguments) == 1


@pytest.mark.parametrize("form", FORMS)
def test_text_of_a_model_without_names(form: str) -> None:
    data, arguments = FORMS[form](np.array(["b", "a", "c"])[BEST])
    if form == "dicts":
        arguments["input_getter"] = lambda row: row["x"]
    with pytest.raises(
        DataError, match=r"that which column is (meant|which) cannot be determined. Say it with class_names="
    ):
        accuracy(data, **arguments)


@pytest.mark.parametrize("form", FORMS)
def test_digits_are_numbers_of_columns_of_a_model_without_names(form: str) -> None:
    data, arguments = FORMS[form](BEST.astype(str))
    if form == "dicts":
        arguments["input_getter"] = lambda row: row["x"]
    assert accuracy(data, **arguments) == 1


NO_CLASS: dict[str, tuple[Any, Any, str]] = {
    "-1": (-1, None, r"its label -1 is no class; the model has 3 classes, 0 to 2\. If .* labels=False"),
    "-1 beside numbers": (-1, ["1", "2", "3"], r"label -1 is no class; .* called '1', '2', '3'\. If .* labels=False"),
    "-1 as text": ("-1", None, r"its label '-1' is no class; .* labels=False"),
    "too many": (3, ["b", "a", "c"], r"its label 3 is no class; the model has 3 classes, 0 to 2\."),
    "no such number": (
        0,
        ["1", "10", "2"],
        r"its label 0 is no class; the model's classes are called '1', '10', '2'\.",
    ),
    "no such name": ("d", ["b", "a", "c"], r"the data has the class\(es\) 'd', which the model has not"),
}


@pytest.mark.parametrize("case", NO_CLASS)
def test_what_is_no_class_is_refused_before_the_run(case: str) -> None:
    label, names, message = NO_CLASS[case]
    good: Any = "b" if label == "d" else "1" if label == "-1" else 1

    def begun(*done: Any) -> Any:
        raise AssertionError("the run began")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fo_onnx.engine.run.Pipeline.execute", begun)
        with pytest.raises(DataError, match=message):
            accuracy(np.tile(X, (2, 1)), labels=[*[good] * 399, label], class_names=names)


def test_a_stream_says_which_row_has_no_class() -> None:
    labels = np.array(["b", "a", "c"], dtype=object)[BEST]
    labels[150] = "d"
    with pytest.raises(
        DataError, match=r"row with id 150: its label 'd' is no class; the model's classes are called 'b', 'a'"
    ):
        accuracy(list(zip(X, labels, strict=True)), class_names=["b", "a", "c"])
    assert fo.generate(model, list(zip(X, labels, strict=True)), labels=False, output="logits").labels is None


# What the data say that integers count -------------------------------------------------------------------------------

ORDER = ("entailment", "neutral", "contradiction")
CODES = np.array([2, 1, 0])[BEST]
"""The data's number of each row's class, if the model's columns are those of `ORDER` from the last to the first."""


def feature(names: tuple[str, ...] = ORDER) -> bytes:
    info = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    return json.dumps(info).encode()


def file_of(folder: Path, codes: np.ndarray, metadata: dict[bytes, bytes]) -> Path:
    table = pa.table({"x": X.tolist(), "label": codes})
    pq.write_table(table.replace_schema_metadata(metadata), folder / "x.parquet")
    return folder / "x.parquet"


def test_parquet_with_class_labels(tmp_path: Path) -> None:
    path = file_of(tmp_path, CODES, {b"huggingface": feature()})
    assert accuracy(path, class_names=ORDER[::-1]) == 1
    assert accuracy(path, class_names=ORDER) == (BEST == 1).mean()
    assert fo.generate(model, path, output="logits").class_names == ORDER, "a model without names takes the data's"
    with pytest.raises(DataError, match=r"the data has the class\(es\) 'contradiction', which the model has not"):
        accuracy(path, class_names=("entailment", "neutral", "none"))
    assert accuracy(path, class_names=("entailment", "neutral", "none"), labels=BEST) == 1, "labels= count columns"


OTHER = [b"", b"[1]", b'{"info": 1}', b'{"info": {"features": {"label": 3}}}', feature(()), feature(("a", "a", "b"))]


@pytest.mark.parametrize("content", OTHER)
def test_other_metadata_say_nothing(content: bytes, tmp_path: Path) -> None:
    assert accuracy(file_of(tmp_path, BEST, {b"huggingface": content}), class_names=ORDER) == 1


def test_class_labels_of_other_models_are_not_taken_by_position(tmp_path: Path) -> None:
    path = file_of(tmp_path, CODES, {b"huggingface": feature(ORDER[:2])})
    with pytest.raises(
        DataError, match=r"labels are names of 2 classes .* does not name its 3.*class_names=.*labels=False"
    ):
        accuracy(path)


def test_no_label_in_class_labels(tmp_path: Path) -> None:
    codes = CODES.copy()
    codes[7] = -1
    path = file_of(tmp_path, codes, {b"huggingface": feature()})
    with pytest.raises(
        DataError, match=r"row with id 7: its label -1 is no class; the data has 3 classes.*labels=False"
    ):
        accuracy(path, class_names=ORDER)


def test_datasets_with_class_labels(tmp_path: Path) -> None:
    hf = pytest.importorskip("datasets")
    features = hf.Features({"x": hf.List(hf.Value("float32")), "label": hf.ClassLabel(names=list(ORDER))})
    data = hf.Dataset.from_dict({"x": X.tolist(), "label": CODES.tolist()}, features=features)
    data.to_parquet(tmp_path / "x.parquet")

    def x_of(row: Any) -> Any:
        return row["x"]

    stream = data.to_iterable_dataset()
    forms = [data, stream, stream.batch(50), stream.filter(lambda row: True), data.with_format("numpy")]
    forms += [hf.concatenate_datasets([data, data])]
    with contextlib.suppress(ImportError):
        from torch.utils.data import ChainDataset, ConcatDataset, DataLoader, Subset

        forms += [DataLoader(data.with_format("torch"), batch_size=32), Subset(data, range(200))]
        forms += [ConcatDataset([data, Subset(data, range(9))]), ChainDataset([stream, stream])]
    for rows in forms:
        assert accuracy(rows, class_names=ORDER[::-1], input_getter=x_of) == 1
    assert accuracy(tmp_path / "x.parquet", class_names=ORDER[::-1]) == 1
    assert accuracy(data, class_names=ORDER[::-1], input_getter=x_of, labels=BEST) == 1
    assert fo.generate(model, data, input_getter=x_of, labels=False, output="logits").labels is None


def test_a_column_of_class_labels() -> None:
    hf = pytest.importorskip("datasets")
    data = hf.Dataset.from_dict(
        {"label": CODES.tolist()}, features=hf.Features({"label": hf.ClassLabel(names=list(ORDER))})
    )
    for labels in (data["label"], data.with_format("numpy")["label"]):
        assert accuracy(X, labels=labels, class_names=ORDER[::-1]) == 1
    # A list does not say what it counts: they are numbers of columns.
    assert accuracy(X, labels=data["label"][:], class_names=ORDER[::-1]) == (CODES == BEST).mean()


class Folder:
    """Like a dataset of torchvision over class folders."""

    def __init__(self, target_transform: Callable[[int], int] | None = None, order: Sequence[str] = ORDER) -> None:
        self.class_to_idx = {name: i for i, name in enumerate(order)}
        self.target_transform = target_transform

    def __len__(self) -> int:
        return len(X)

    def __getitem__(self, i: int) -> tuple[np.ndarray, int]:
        label = int(CODES[i])
        return X[i], label if self.target_transform is None else self.target_transform(label)


def test_datasets_with_class_to_idx() -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    for rows in (Folder(), torch_data.Subset(Folder(), range(200)), torch_data.DataLoader(Folder(), batch_size=32)):
        assert accuracy(rows, class_names=ORDER[::-1]) == 1
        assert accuracy(rows, class_names=ORDER) == (BEST == 1).mean()
    assert fo.generate(model, Folder(), output="logits", progress=False).class_names == ORDER
    # A target_transform makes numbers of columns of them.
    assert accuracy(Folder(lambda label: 2 - label), class_names=ORDER[::-1]) == 1


def test_concatenated_datasets() -> None:
    torch_data = pytest.importorskip("torch.utils.data")

    class Wrapper(torch_data.Dataset):
        def __init__(self, dataset: Any) -> None:
            self.dataset = dataset

        def __len__(self) -> int:
            return len(self.dataset)

        def __getitem__(self, i: int) -> Any:
            return self.dataset[i]

    two = torch_data.ConcatDataset([torch_data.Subset(Folder(), range(150)), Folder()])
    # A part that says nothing counts as the others do.
    mixed = torch_data.ConcatDataset([list(zip(X, CODES.tolist(), strict=True)), Folder()])
    for rows in (torch_data.ConcatDataset([Folder()]), two, torch_data.DataLoader(two, batch_size=32), mixed):
        assert accuracy(rows, class_names=ORDER[::-1]) == 1
    # What a class of the user's does to labels is not known: they are numbers of columns.
    assert accuracy(Wrapper(Folder()), class_names=ORDER) == (CODES == BEST).mean()


@pytest.mark.parametrize(
    ("order", "difference"),
    [
        (ORDER[::-1], f"0 is '{ORDER[0]}' in one and '{ORDER[-1]}' in another"),
        (ORDER[:2], "2 is .* in one and no class in another"),
    ],
)
def test_concatenated_datasets_that_count_differently(order: Sequence[str], difference: str) -> None:
    torch_data = pytest.importorskip("torch.utils.data")
    rows = torch_data.ConcatDataset([Folder(), Folder(order=order)])
    with pytest.raises(DataError, match=rf"{difference}\. .* with labels= .* labels=False"):
        accuracy(rows, class_names=ORDER)
    names = [ORDER[code] for code in CODES.tolist()]
    assert accuracy(rows, class_names=ORDER, labels=2 * names) == (CODES == BEST).mean()
    assert fo.generate(model, rows, labels=False, output="logits", progress=False).labels is None


def test_a_column_of_class_labels_beside_arrays() -> None:
    hf = pytest.importorskip("datasets")
    column = hf.Dataset.from_dict(
        {"label": CODES.tolist()}, features=hf.Features({"label": hf.ClassLabel(names=list(ORDER))})
    )["label"]
    dists = fo.generate(
        lambda columns: model(columns["x"]),
        {"x": X, "label": column},
        class_names=ORDER[::-1],
        output="logits",
        progress=False,
    )
    assert dists.metrics()["accuracy"] == 1


# Verbs that want no labels, and runs that are resumed ---------------------------------------------------------------


def test_labels_are_no_matter_to_a_comparison(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    net = torch.nn.Linear(3, 3)
    pq.write_table(pa.table({"x": X.tolist(), "label": pa.array([None] * 200, pa.int64())}), tmp_path / "x.parquet")
    for i, data in enumerate([tmp_path / "x.parquet", (X, np.full((200, 3), 1 / 3))]):
        file = fo.export(net, data, tmp_path / f"{i}.onnx")
        assert fo.verify(file, net, data).passed


def test_a_stream_of_text_is_resumed(tmp_path: Path) -> None:
    names = ["b", "a", "c"]
    rows = 2 * list(zip(X, np.array(names)[BEST].tolist(), strict=True))

    def stopping() -> Any:
        yield from rows[:300]
        raise KeyboardInterrupt

    arguments: Any = {"class_names": names, "out": tmp_path / "d.parquet", "batch_size": 8, "output": "logits"}
    with pytest.raises(KeyboardInterrupt):
        fo.generate(model, stopping(), **arguments)
    changed = [*rows[:3], (X[3], names[BEST[3] - 1]), *rows[4:]]
    with pytest.raises(fo.StoreError, match=r"the input or the label of at least 1 row changed, first at row 3"):
        fo.generate(model, iter(changed), resume=True, limit=400, **arguments)
    assert fo.generate(model, iter(rows), resume=True, limit=400, **arguments).metrics()["accuracy"] == 1
