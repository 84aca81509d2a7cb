"""Tensors, datasets and loaders as sources."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.contracts.batch import Batch
from fo_onnx.contracts.options import DataOptions
from fo_onnx.contracts.source import Source
from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import DataError
from fo_onnx.sources import open_source
from fo_onnx.sources.arrays import ArraySource
from fo_onnx.sources.iterables import IterableSource
from fo_onnx.sources.sequences import RowSource

torch = pytest.importorskip("torch")
from fo_onnx_torch.sources import TorchSources  # noqa: E402
from fo_onnx_torch.tensors import to_numpy, to_tensor  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.data import (  # noqa: E402
    BatchSampler,
    ChainDataset,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

X = torch.arange(20.0).reshape(10, 2)
Y = torch.arange(10) % 3


class Pairs(Dataset):  # type: ignore[type-arg]
    def __len__(self) -> int:
        return 10

    def __getitem__(self, i: int) -> Any:
        return X[i], int(Y[i])


class Stream(IterableDataset):  # type: ignore[type-arg]
    def __init__(self, n: int = 10) -> None:
        self.n = n

    def __iter__(self) -> Iterator[Any]:
        return ((X[i], int(Y[i])) for i in range(self.n))


class LongStream(Stream):
    def __len__(self) -> int:
        return self.n


class Nothing(Dataset):  # type: ignore[type-arg]
    def __getitem__(self, i: int) -> Any:
        return X[i]


def opened(data: Any, **options: Any) -> Source:
    return open_source(data, DataOptions(**options), [TorchSources()])


def whole(source: Source) -> Batch:
    (batch,) = source.batches(100)
    return batch


@pytest.mark.parametrize(
    ("data", "kind", "length"),
    [
        ((X, Y), ArraySource, 10),
        ({"x": X, "label": Y}, ArraySource, 10),
        (((X,), Y), ArraySource, 10),
        (TensorDataset(X, Y), ArraySource, 10),
        (list(zip(X, Y, strict=True)), RowSource, 10),
        ([{"x": x, "y": y} for x, y in zip(X, Y, strict=True)], RowSource, 10),
        (Pairs(), RowSource, 10),
        (Subset(TensorDataset(X, Y), range(10)), RowSource, 10),
        (Stream(), IterableSource, None),
        (LongStream(), IterableSource, 10),
        (DataLoader(Pairs(), batch_size=3), IterableSource, 10),
        (DataLoader(Pairs(), batch_size=None), IterableSource, 10),
        (DataLoader(Stream(), batch_size=3), IterableSource, None),
        (DataLoader(Stream(), batch_size=None), IterableSource, None),
        (ChainDataset([Stream()]), IterableSource, None),
        (DataLoader(ChainDataset([Stream()]), batch_size=None), IterableSource, None),
        (ChainDataset([LongStream()]), IterableSource, 10),
        (DataLoader(LongStream(), batch_size=3), IterableSource, 10),
        (DataLoader(TensorDataset(X, Y), batch_size=4, num_workers=1), IterableSource, 10),
        (zip(X, Y, strict=True), IterableSource, None),
        (iter(DataLoader(Pairs(), batch_size=3)), IterableSource, None),
    ],
)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_every_kind_gives_the_same_rows(data: Any, kind: type, length: int | None) -> None:
    source = opened(data)
    assert type(source) is kind
    assert source.length == length
    batch = whole(source)
    assert list(batch.inputs) in (["0"], ["x"])
    (array,) = batch.inputs.values()
    assert isinstance(array, np.ndarray)
    np.testing.assert_array_equal(array, X.numpy())
    assert batch.labels is not None
    assert batch.labels.tolist() == Y.tolist()
    assert batch.ids.tolist() == list(range(10))


def test_tensors_share_their_memory() -> None:
    for data in (X, TensorDataset(X)):
        source = opened(data)
        assert source.in_memory
        assert np.shares_memory(source.peek(3).inputs["0"], X.numpy())


def test_a_tensor_dataset_is_not_looped_over() -> None:
    class Watched(TensorDataset):
        def __getitem__(self, i: Any) -> Any:
            raise AssertionError("looped over")

    assert len(whole(opened(Watched(X, Y)))) == 10


def test_a_tensor_dataset_of_inputs_alone() -> None:
    source = opened(TensorDataset(X, X), signature=InputSignature(("a", "b")))
    assert list(source.peek(1).inputs) == ["0", "1"]
    source = opened(TensorDataset(X, X, Y.float()), signature=InputSignature(("a", "b")))
    assert list(source.peek(1).inputs) == ["0", "1"]
    assert source.has_labels


def test_batches_of_one_dimensional_rows_from_a_loader() -> None:
    source = opened(DataLoader(TensorDataset(torch.arange(7.0)), batch_size=3))
    assert whole(source).inputs["0"].shape == (7,)


def test_dict_batches() -> None:
    rows = [{"input_ids": X[i], "labels": int(Y[i]), "name": f"row {i}"} for i in range(10)]
    source = opened(DataLoader(rows, batch_size=4), signature=InputSignature(("input_ids",), ("labels", "mask")))  # type: ignore[arg-type]
    batch = whole(source)
    assert list(batch.inputs) == ["input_ids"]
    assert batch.labels is not None
    assert batch.labels.tolist() == Y.tolist()


def test_a_transform_may_give_tensors() -> None:
    batch = whole(opened(Pairs(), transform=lambda x: x.double() * 2))
    np.testing.assert_array_equal(batch.inputs["0"], X.numpy() * 2)
    assert batch.inputs["0"].dtype == np.float64


@pytest.mark.parametrize(
    "data",
    [X, (X, Y), {"0": X, "y": Y}, TensorDataset(X, Y), Pairs(), DataLoader(Pairs(), batch_size=3), [(x, 1) for x in X]],
)
def test_a_transform_sees_tensors(data: Any) -> None:
    def double(x: Any) -> Any:
        x = x["0"] if isinstance(x, dict) else x
        assert isinstance(x, torch.Tensor)
        assert x.shape == (2,)
        return x * 2

    batch = whole(opened(data, transform=double))
    np.testing.assert_array_equal(batch.inputs["0"], X.numpy() * 2)
    assert (batch.labels is None) == (data is X)


@pytest.mark.parametrize(
    ("loader", "name"),
    [
        (DataLoader(Pairs(), shuffle=True), "RandomSampler"),
        (DataLoader(Pairs(), sampler=RandomSampler(Pairs())), "RandomSampler"),
        (DataLoader(Pairs(), sampler=SubsetRandomSampler([1, 2])), "SubsetRandomSampler"),
        (DataLoader(Pairs(), sampler=WeightedRandomSampler([1.0] * 10, 10)), "WeightedRandomSampler"),
        (DataLoader(Pairs(), sampler=[3, 1, 2]), "list"),
        (DataLoader(Pairs(), batch_sampler=[[3, 1], [2]]), "list"),
        (DataLoader(Pairs(), batch_sampler=BatchSampler(RandomSampler(Pairs()), 2, False)), "RandomSampler"),
    ],
)
def test_loaders_whose_order_is_not_known(loader: Any, name: str) -> None:
    with pytest.raises(
        DataError,
        match=rf"the loader takes its rows in an order that is not known beforehand \({name}\).* Make it with shuffle=False and "
        r"without a sampler, or give the ids of the rows in the loader's order with ids=\.",
    ):
        opened(loader)


def test_a_batch_sampler_in_order_is_taken() -> None:
    loader = DataLoader(Pairs(), batch_sampler=BatchSampler(SequentialSampler(Pairs()), 4, False))
    assert whole(opened(loader)).labels.tolist() == Y.tolist()  # type: ignore[union-attr]


def test_an_odd_order_with_ids() -> None:
    source = opened(DataLoader(Pairs(), sampler=[3, 1, 2]), ids=["three", "one", "two"])
    assert source.length == 3
    batch = whole(source)
    assert batch.ids.tolist() == ["three", "one", "two"]
    assert batch.inputs["0"][:, 0].tolist() == [6, 2, 4]
    source = opened(DataLoader(Pairs(), batch_sampler=[[3, 1], [2]]), ids=["three", "one", "two"])
    assert (source.length, len(whole(source))) == (None, 3)
    with pytest.raises(DataError, match="ids= has 2 entries, but the data have 3 rows"):
        opened(DataLoader(Pairs(), sampler=[3, 1, 2]), ids=[3, 1])


def test_a_loader_of_a_shuffled_stream() -> None:
    hf = pytest.importorskip("datasets")
    stream = hf.Dataset.from_dict({"x": list(range(12))}).to_iterable_dataset()
    shuffled = stream.shuffle()
    for data in (shuffled, ChainDataset([stream, shuffled])):
        with pytest.raises(DataError, match=r"random order \(shuffle without a seed\).*ids="):
            opened(DataLoader(data, batch_size=4))
    ids = [row["x"] for row in shuffled]
    batch = whole(opened(DataLoader(shuffled, batch_size=4), ids=ids))
    assert batch.ids.tolist() == batch.inputs["x"].tolist() == ids
    assert len(whole(opened(DataLoader(stream.shuffle(seed=3), batch_size=4)))) == 12


def test_a_loader_that_would_lose_rows() -> None:
    with pytest.raises(
        DataError, match=r"drop_last=True and would lose the last 1 of 10 rows\. Make it with drop_last=False"
    ):
        opened(DataLoader(Pairs(), batch_size=3, drop_last=True))
    with pytest.raises(DataError, match=r"drop_last=True and would lose the last 2 of 10 rows"):
        opened(DataLoader(Pairs(), batch_sampler=BatchSampler(SequentialSampler(Pairs()), 4, True)))
    with pytest.raises(DataError, match=r"drop_last=True and may lose rows"):
        opened(DataLoader(Stream(), batch_size=5, drop_last=True))
    assert len(whole(opened(DataLoader(Pairs(), batch_size=5, drop_last=True)))) == 10


def test_a_loader_whose_workers_race() -> None:
    with pytest.raises(DataError, match="made with in_order=False"):
        opened(DataLoader(Pairs(), num_workers=2, in_order=False))


def test_a_dataset_without_length() -> None:
    with pytest.raises(DataError, match="the dataset Nothing has no length: __len__ and __getitem__ were expected"):
        opened(Nothing())


class TestAccepts:
    @pytest.mark.parametrize("data", [X, [X], (X, 1), {"a": X}, Pairs(), DataLoader(Pairs()), iter([1])])
    def test_its_own(self, data: Any) -> None:
        assert TorchSources().accepts(data)

    @pytest.mark.parametrize("data", [np.zeros(2), [np.zeros(2)], "x.npy", [], 3, None, range(3)])
    def test_not_others(self, data: Any) -> None:
        assert not TorchSources().accepts(data)

    def test_it_does_not_import_torch(self) -> None:
        program = (
            "import sys; from fo_onnx_torch.sources import TorchSources\n"
            "print(TorchSources().accepts([1.0]), TorchSources().accepts(iter([1.0])), 'torch' in sys.modules)"
        )
        run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        assert run.stdout.split() == ["False", "False", "False"]


class TestTensors:
    def test_to_numpy_shares_memory(self) -> None:
        assert np.shares_memory(to_numpy(X), X.numpy())
        assert np.shares_memory(to_numpy(X.clone().requires_grad_()), X.numpy()) is False

    @pytest.mark.parametrize("dtype", ["float64", "float32", "float16", "int64", "int32", "int8", "uint8", "bool"])
    def test_round_trip(self, dtype: str) -> None:
        array = np.array([[0, 1], [3, 4]]).astype(dtype)
        array_back = to_numpy(to_tensor(array))
        np.testing.assert_array_equal(array_back, array)
        assert array_back.dtype == array.dtype

    def test_to_numpy_of_what_numpy_lacks(self) -> None:
        for dtype in (torch.bfloat16, torch.float8_e4m3fn):
            array_back = to_numpy(torch.tensor([1.0, 2.0]).to(dtype))
            assert (array_back.dtype, array_back.tolist()) == (np.float32, [1, 2])
        assert to_numpy(torch.eye(2).to_sparse()).tolist() == [[1, 0], [0, 1]]
        assert to_numpy(torch.ones(2, requires_grad=True) * 2).tolist() == [2, 2]
        assert to_numpy(torch.tensor([1 + 2j]).conj()).tolist() == [1 - 2j]

    def test_to_tensor_shares_writable_memory_alone(self) -> None:
        array = np.zeros(3, np.float32)
        to_tensor(array)[0] = 5
        assert array[0] == 5
        frozen = np.zeros(3, np.float32)
        frozen.flags.writeable = False
        to_tensor(frozen)[0] = 5  # torch's warning would be an error here
        assert frozen[0] == 0

    @pytest.mark.parametrize(
        "array", [np.arange(6.0)[::-1], np.arange(6.0, dtype=">f4"), np.arange(6.0)[::2], np.zeros((0, 3))]
    )
    def test_to_tensor_of_odd_layouts(self, array: np.ndarray) -> None:
        assert to_tensor(array).tolist() == array.tolist()

    def test_tensors_that_numpy_cannot_read_by_itself(self) -> None:
        rows = [torch.ones(2, dtype=torch.bfloat16, requires_grad=True)] * 3
        for data in (rows, iter(rows), torch.stack(rows)):
            assert whole(opened(data)).inputs["0"].tolist() == [[1, 1]] * 3


class PerStep(nn.Module):
    """Scores of the time steps, averaged: takes a sequence for a batch of steps, too."""

    def __init__(self) -> None:
        super().__init__()
        self.scores = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.scores(x).reshape(len(x), -1, 3).mean(1)


class Sequences(IterableDataset):
    def __init__(self, rows: torch.Tensor) -> None:
        self.rows = rows

    def __iter__(self) -> Any:
        return iter(self.rows)


SEQUENCES = torch.randn(30, 5, 4, generator=torch.Generator().manual_seed(0))
AS_SAMPLES: dict[str, Callable[[], Any]] = {
    "an IterableDataset": lambda: Sequences(SEQUENCES),
    "a list": lambda: list(SEQUENCES),
    "a loader": lambda: DataLoader(SEQUENCES, batch_size=7),
    "pairs": lambda: ((row, 0) for row in SEQUENCES),
    "batches with labels": lambda: ((part, torch.zeros(len(part), dtype=torch.int64)) for part in SEQUENCES.split(8)),
}


@pytest.mark.parametrize("form", AS_SAMPLES)
def test_samples_of_several_axes(form: str) -> None:
    net = PerStep().eval()
    with torch.no_grad():
        expected = net(SEQUENCES).softmax(-1).numpy()
    dists = fo.generate(net, AS_SAMPLES[form](), runner="native", output="logits", progress=False)
    np.testing.assert_allclose(dists.probs, expected, atol=1e-6)


@pytest.mark.parametrize("limit", [None, 30])
def test_elements_that_may_be_samples_as_well_as_batches(limit: int | None) -> None:
    with pytest.raises(fo.DataError, match=r"taken as a batch of 5 rows.*takes it as one sample, too.*IterableDataset"):
        fo.generate(PerStep(), iter(SEQUENCES), limit=limit, progress=False)


def test_a_model_that_refuses_what_was_taken_for_batches() -> None:
    net = nn.Sequential(nn.Conv2d(3, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(10, 3, 8, 8)
    with pytest.raises(fo.DataError, match=r"It may be no batch: .*\(3, 8, 8\), is taken as a batch of 3 rows"):
        fo.generate(net, iter(images), progress=False)
    assert len(fo.generate(net, Sequences(images), runner="native", output="logits", progress=False)) == 10


def test_batches_of_which_none_is_a_sample() -> None:
    rows = torch.randn(64, 4)
    assert len(fo.generate(nn.Linear(4, 3), iter(rows.split(16)), runner="native", output="logits")) == 64
