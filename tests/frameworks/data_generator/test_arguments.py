"""Messages of the core name the generators' own arguments, or the call that takes the one that a generator lacks."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
jax = pytest.importorskip("jax")
tf = pytest.importorskip("tensorflow")
from data_generator_models import K, W, labels, x  # noqa: E402
from frameworks import of_jax, of_tensorflow, of_torch  # noqa: E402

import fo_onnx as fo  # noqa: E402
from fo_onnx.contracts.options import GenerateArguments  # noqa: E402
from fo_onnx.data_generator import first_order_datagenerator as agnostic  # noqa: E402
from fo_onnx.data_generator import jax_first_order_generator as in_jax  # noqa: E402
from fo_onnx.data_generator import tensorflow_generator as in_tensorflow  # noqa: E402
from fo_onnx.data_generator import torch_first_order_generator as in_torch  # noqa: E402
from fo_onnx.data_generator.arguments import OWN, rewrite  # noqa: E402
from fo_onnx.data_generator.generator import LastRun  # noqa: E402
from fo_onnx.errors import FoOnnxError, StoreError  # noqa: E402

OWN_OF_GENERATORS = {"device", "batch_size", "labels", *OWN}
OWN_OF_EVALUATING = {"device", "batch_size"}


def named(message: str, own: set[str]) -> set[str]:
    """The arguments that a message names; each that the caller lacks must be followed by what takes it."""
    said, _, advice = message.partition(" There is no ")
    names = set(re.findall(r"(?<![\w./])([a-z_]+)=(?!=)", said))
    known = names & ({*GenerateArguments.__annotations__} | {*OWN})
    for name in known - own:
        assert re.search(rf"(^|There is no ){name}= here; .*\b{name}=….* takes it\.", advice), message
    assert "output" not in known, message
    return known


def refused(act: Callable[[], Any]) -> str:
    with pytest.raises(FoOnnxError) as caught:
        act()
    return str(caught.value)


class Broken:
    """Samples of which one cannot be read."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, index: int) -> Any:
        if index == 7:
            raise OSError("no disk")
        return x[index]


def raising() -> Any:
    yield from x[:9]
    raise OSError("no disk")


def shuffled_loader() -> Any:
    return torch.utils.data.DataLoader(of_torch().data, batch_size=8, shuffle=True)


def linear() -> Any:
    return of_torch().model


def sigmoid(inputs: Any) -> Any:
    return 1 / (1 + np.exp(-inputs @ W))


images = np.zeros((4, 8, 8, 3), np.float32)
convolution = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, K))
CASES: dict[str, tuple[set[str], Callable[[], Any]]] = {
    # What the output means.
    "logits said to be probs": ({"output_mode"}, lambda: torch_rows(linear(), x, output_mode="probs")),
    "several labels": ({"output_mode", "output_transform"}, lambda: numpy_rows(sigmoid, x)),
    "one probability": ({"output_mode"}, lambda: numpy_rows(lambda a: sigmoid(a)[:, 0], x)),
    "one number": ({"output_mode"}, lambda: numpy_rows(lambda a: a[:, 0], x, output_mode="logits")),
    "NaN alone": ({"output_mode"}, lambda: numpy_rows(lambda a: np.full((len(a), 3), np.nan), x)),
    "a transform that gives none": ({"output_mode", "on_error"}, lambda: numpy_rows(lambda a: a @ W, x, output_transform=lambda z: z)),
    "three axes": ({"output_name", "output_transform"}, lambda: numpy_rows(lambda a: np.zeros((len(a), 2, 3)), x)),
    "several outputs": ({"output_name"}, lambda: numpy_rows(lambda a: {"p": a @ W, "q": a @ W}, x)),
    "a predicted class": ({"output_name"}, lambda: torch_rows(lambda a: linear()(a).argmax(-1), torch.tensor(x), runner="native")),
    # What the data are.
    "a shuffled loader": ({"ids"}, lambda: torch_rows(linear(), shuffled_loader())),
    "a shuffled pipeline": (set(), lambda: tensorflow_rows(of_tensorflow().data.shuffle(9))),
    "a pipeline without end": ({"limit"}, lambda: tensorflow_rows(of_tensorflow().data.repeat())),
    "text": ({"input_getter", "transform"}, lambda: torch_rows(linear(), np.array(["a", "b"]))),
    "images the wrong way round": ({"transform"}, lambda: torch_rows(convolution, images)),
    "rows that do not fit": ({"input_getter"}, lambda: torch_rows(linear(), np.zeros((5, 9), np.float32))),
    "ragged rows": ({"transform"}, lambda: numpy_rows(lambda a: a @ W, [*x[:20], x[0][:2]])),
    "a row that cannot be read": ({"on_error"}, lambda: numpy_rows(lambda a: a @ W, Broken())),
    "an iterable that raises": (set(), lambda: numpy_rows(lambda a: a @ W, raising())),
    "labels that are no class": ({"labels"}, lambda: in_torch.FirstOrderDataGenerator(linear()).run((x, np.full((len(x), 3), 0.4)))),
    # The model, and where it runs.
    "parameters elsewhere": ({"params"}, lambda: jax_rows(linen_module(), x)),
    "no graph": ({"runner"}, lambda: numpy_rows(lambda a: a @ W, x, runner="onnx")),
    "no such device": ({"device"}, lambda: torch_rows(linear(), x, device="cuda:7")),
    "an unknown device": ({"device"}, lambda: numpy_rows(lambda a: a @ W, x, device="foo")),
}  # fmt: skip


def torch_rows(model: Any, data: Any, **options: Any) -> Any:
    return in_torch.FirstOrderDataGenerator(model, **options).generate_distributions(data)


def numpy_rows(model: Any, data: Any, **options: Any) -> Any:
    return agnostic.FirstOrderDataGenerator(model, **options).generate_distributions(data)


def jax_rows(model: Any, data: Any) -> Any:
    return in_jax.FirstOrderDataGenerator(model).generate_distributions(data)


def tensorflow_rows(data: Any) -> Any:
    return in_tensorflow.FirstOrderDataGenerator(of_tensorflow().model).generate_distributions(data)


def linen_module() -> Any:
    return pytest.importorskip("flax.linen").Dense(K)


@pytest.mark.parametrize("case", CASES)
def test_a_generator_names_its_own_arguments(case: str) -> None:
    wanted, act = CASES[case]
    message = refused(act)
    assert wanted <= named(message, OWN_OF_GENERATORS), message


@pytest.mark.parametrize(
    ("wanted", "make"),
    [
        ({"output_mode"}, lambda: agnostic.DataGenerator(lambda a: sigmoid(a)[:, 0], x)),
        ({"output_mode", "output_transform"}, lambda: agnostic.DataGenerator(sigmoid, x)),
        ({"input_getter"}, lambda: in_torch.PyTorchDataGenerator(linear(), np.zeros((5, 9), np.float32))),
        ({"labels"}, lambda: in_torch.PyTorchDataGenerator(linear(), (x, np.full((len(x), 3), 0.4)))),
        ({"labels"}, lambda: in_jax.JAXDataGenerator(of_jax().model, (x, np.full((len(x), 3), 0.4)))),
        ({"ids"}, lambda: in_torch.PyTorchDataGenerator(linear(), shuffled_loader())),
        ({"limit"}, lambda: in_tensorflow.TensorFlowDataGenerator(of_tensorflow().model, of_tensorflow().data.repeat())),
        ({"device"}, lambda: agnostic.DataGenerator(lambda a: a @ W, x, device="cuda")),
    ],
)  # fmt: skip
def test_a_generator_with_its_dataset_has_fewer(wanted: set[str], make: Callable[[], Any]) -> None:
    message = refused(lambda: make().generate())
    assert wanted <= named(message, OWN_OF_EVALUATING), message


def test_a_pickle(tmp_path: Path) -> None:
    torch.save(linear(), tmp_path / "net.pt")
    message = refused(lambda: torch_rows(tmp_path / "net.pt", x))
    assert message.endswith("There is no trust= here; fo_onnx.generate(model, data, trust=…) takes it.")


def test_raw_outputs() -> None:
    generator = agnostic.FirstOrderDataGenerator(None)
    assert named(refused(lambda: generator.to_probs(np.array([[0.2, 0.9], [0.4, 0.3]]))), OWN_OF_GENERATORS) >= {
        "output_mode"
    }
    assert named(refused(lambda: generator.to_probs(np.zeros((2, 2, 2)))), OWN_OF_GENERATORS) >= {"output_name"}


def test_an_unfinished_run_without_rows(tmp_path: Path) -> None:
    class NoRow:
        def __len__(self) -> int:
            return 9

        def __getitem__(self, index: int) -> Any:
            if index:
                raise OSError("no disk")
            return x[index]

    with pytest.raises(FoOnnxError):
        fo.generate(lambda a: a @ W, NoRow(), out=tmp_path / "rows.parquet", batch_size=4)
    for act in (
        lambda: agnostic.FirstOrderDataGenerator(None).load_distributions(tmp_path / "rows.parquet"),
        lambda: agnostic.output_dataloader((x, labels), tmp_path / "rows.parquet"),
    ):
        with pytest.raises(StoreError) as caught:
            act()
        named(str(caught.value), OWN_OF_GENERATORS)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ("Say output='logits'.", "Say output_mode='logits'."),
        ("say output_name=.", "say output_name=. There is no output_name= here; fo_onnx.generate(model, data, output_name=…) takes it."),
        ("at runs/ids=3/x.npy, with device='cpu'", "at runs/ids=3/x.npy, with device='cpu'"),
        ("Give ids= or ids=[1]", "Give ids= or ids=[1]. There is no ids= here; fo_onnx.generate(model, data, ids=…) takes it."),
        ("it cannot go on, whatever on_error= says; mend it.", "it cannot go on; mend it."),
        ("where output==3", "where output==3"),
        ("output_transform= failed", "output_transform= failed"),
    ],
)  # fmt: skip
def test_names_are_written_anew(message: str, wanted: str) -> None:
    assert rewrite(message) == wanted


def test_the_reason_of_the_last_run_is_rewritten_too() -> None:
    meta = {"runner": {"kind": "native", "reason": "output= says so"}, "model": {"output": "logits"}}
    assert LastRun.from_meta(meta).reason == "output_mode= says so"


def test_the_error_stays_what_it_is() -> None:
    with pytest.raises(fo.DataError) as caught:
        numpy_rows(lambda a: a @ W, Broken())
    assert caught.value.position == 7
    assert len(caught.value.finished) == 7  # type: ignore[attr-defined]
