"""A trained net with its data in files, and a folder of its own for each test, in which commands are run."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import fo_onnx
from fo_onnx.cli.main import main

MODULE = '''
import numpy as np
import torch
from fo_onnx_torch.demo import DigitNet

images = np.load("x.npy")
labels = np.load("y.npy")


def fresh() -> torch.nn.Module:
    torch.manual_seed(1)
    return DigitNet()


def trained():
    net = DigitNet()
    net.load_state_dict(torch.load("w.pt", weights_only=True))
    return net.eval()


def linear(x):
    return x.reshape(len(x), -1)[:, :10] * 40


class Wide(torch.nn.Module):
    def __init__(self, width):
        super().__init__()


class Doubting(DigitNet):
    """Has an if that depends on the data, which no trace can hold."""

    def forward(self, image):
        logits = super().forward(image)
        if logits.max() > 0:
            return logits
        return -logits


def doubting():
    net = Doubting()
    net.load_state_dict(torch.load("w.pt", weights_only=True))
    return net


def sized(width) -> torch.nn.Module:
    return Wide(width)


def failing():
    raise RuntimeError("no weights here")


def nothing():
    return None


def dataset():
    return torch.utils.data.TensorDataset(torch.from_numpy(images), torch.from_numpy(labels))


class Interrupted:
    """Ctrl-C at row 450."""

    def __len__(self):
        return len(images)

    def __getitem__(self, row):
        if row == 450:
            raise KeyboardInterrupt
        return images[row]
'''


@pytest.fixture(scope="session")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Files that every test starts with."""
    torch = pytest.importorskip("torch")
    from fo_onnx_torch.demo import digits, train

    folder = tmp_path_factory.mktemp("made")
    images, labels = digits()
    images, labels = images[:600], labels[:600]
    net = train(images, labels)
    torch.save(net.state_dict(), folder / "w.pt")
    np.save(folder / "x.npy", images)
    np.save(folder / "y.npy", labels)
    fo_onnx.export(net, images[:64], folder / "d.onnx", class_names=list("abcdefghij"))
    fo_onnx.generate(folder / "d.onnx", images[:100], labels=labels[:100], out=folder / "d.parquet", meta={"who": "me"})
    (folder / "app.py").write_text(MODULE)
    return folder


@pytest.fixture
def work(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, with copies of the files."""
    shutil.copytree(files, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]


@pytest.fixture
def run() -> Callable[..., Result]:
    """Runs ``fo-onnx`` with arguments in this process."""

    def call(*arguments: object) -> Result:
        return CliRunner().invoke(main, [str(a) for a in arguments], prog_name="fo-onnx")

    return call
