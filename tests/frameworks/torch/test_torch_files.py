"""torch models in files: external data beside an export, pickles, weights."""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.conversion.parity import row_spread
from fo_onnx.distributions.probabilities import total_variation
from fo_onnx.errors import ModelError, ModelNotFoundError, TrustError

torch = pytest.importorskip("torch")
import fo_onnx_torch.export  # noqa: E402
from fo_onnx_torch.files import load, load_weights  # noqa: E402
from torch import nn  # noqa: E402
from torch_nets import CASES, Mlp, make, normal, program, scripted, truth  # noqa: E402

assert CASES


class Wide(Mlp):
    """Large enough that its weights are worth a file of their own (onnx keeps tensors below 1 kB inside)."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Linear(8, 512)
        self.less = nn.Linear(512, 8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x + self.less(torch.relu(self.more(x))))


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any, np.ndarray]:
    """A model with external data, as those above 2 GB have."""
    folder = tmp_path_factory.mktemp("external")
    torch.manual_seed(0)
    net, rows = Wide().eval(), normal(40, 8)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fo_onnx_torch.export, "EXTERNAL_DATA_BYTES", 1000)
        fo.export(net, rows, folder / "wide.onnx")
    return folder, net, rows


@pytest.fixture
def folder(exported: tuple[Path, Any, np.ndarray], tmp_path: Path) -> Path:
    """A copy of its folder, to be damaged."""
    shutil.copytree(exported[0], tmp_path / "model")
    return tmp_path / "model"


def data_file(folder: Path) -> Path:
    (data,) = (p for p in folder.iterdir() if p.suffix != ".onnx")
    return data


def test_external_data_lies_beside_the_model(exported: tuple[Path, Any, np.ndarray]) -> None:
    folder, net, rows = exported
    data = data_file(folder)
    assert re.fullmatch(r"wide\.onnx\.[0-9a-f]{16}\.data", data.name)
    assert data.stat().st_size > 4 * 8 * 512 > (folder / "wide.onnx").stat().st_size / 4

    dists = fo.generate(folder / "wide.onnx", rows)

    with torch.no_grad():
        expected = torch.softmax(net(torch.from_numpy(rows)).double(), 1).numpy()
    assert total_variation(expected, dists.probs).max() < 1e-5


def test_the_digest_covers_external_data(folder: Path) -> None:
    model = fo.OnnxModel.open(folder / "wide.onnx")
    data = data_file(folder)
    both = hashlib.sha256((folder / "wide.onnx").read_bytes() + data.read_bytes()).hexdigest()
    assert model.sha256 == both
    content = bytearray(data.read_bytes())
    content[100] ^= 1
    data.write_bytes(content)
    assert fo.OnnxModel.open(folder / "wide.onnx").sha256 != both


def test_a_folder_with_external_data_can_be_moved(folder: Path, exported: tuple[Path, Any, np.ndarray]) -> None:
    rows = exported[2]
    moved = folder.rename(folder.with_name("elsewhere"))

    dists = fo.generate(moved / "wide.onnx", rows)

    assert dists.equals(fo.generate(exported[0] / "wide.onnx", rows))


@pytest.mark.slow
def test_a_native_fallback_is_not_needed_for_external_data(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    net, rows = Wide().eval(), normal(40, 8)
    monkeypatch.setattr(fo_onnx_torch.export, "EXTERNAL_DATA_BYTES", 1000)

    dists = fo.generate(net, rows, runner="onnx")

    with torch.no_grad():
        expected = torch.softmax(net(torch.from_numpy(rows)).double(), 1).numpy()
    assert total_variation(expected, dists.probs).max() < 1e-5


def test_missing_external_data(folder: Path) -> None:
    data = data_file(folder)
    data.unlink()

    with pytest.raises(
        ModelNotFoundError, match=rf"its external data '{re.escape(data.name)}' is missing. Copy it beside"
    ):
        fo.generate(folder / "wide.onnx", normal(4, 8))


def test_truncated_external_data(folder: Path) -> None:
    data = data_file(folder)
    data.write_bytes(data.read_bytes()[:100])

    with pytest.raises(ModelError, match=r"wide\.onnx: the place of the tensor .*weight"):
        fo.generate(folder / "wide.onnx", normal(4, 8))


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
@pytest.mark.parametrize("kind", ["symbolic", "symbolic inside", "hard"])
def test_linked_external_data_is_refused(folder: Path, kind: str) -> None:
    data = data_file(folder)
    elsewhere = folder / "real" if kind == "symbolic inside" else folder.parent / "secret"
    data.rename(elsewhere)
    (os.link if kind == "hard" else os.symlink)(elsewhere, data)

    with pytest.raises(ModelError, match="Copy the data beside" if kind == "hard" else "Put the data beside") as caught:
        fo.generate(folder / "wide.onnx", normal(4, 8))

    assert f"'{data.name}'" in str(caught.value)


@pytest.mark.parametrize("location", ["../secret", "/etc/hostname", "sub/../../secret", ""])
def test_external_data_outside_the_folder_is_refused(folder: Path, location: str) -> None:
    import onnx

    data_file(folder).rename(folder.parent / "secret")
    (folder / "sub").mkdir()
    proto = onnx.load_model(folder / "wide.onnx", load_external_data=False)
    for tensor in proto.graph.initializer:
        for entry in tensor.external_data:
            if entry.key == "location":
                entry.value = location
    (folder / "wide.onnx").write_bytes(proto.SerializeToString())

    with pytest.raises(ModelError, match="lies outside the model's folder, or is a link there"):
        fo.generate(folder / "wide.onnx", normal(4, 8))


class Trap:
    """Leaves a mark where it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> Any:
        return (Path.touch, (self.mark,))


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".pt2"])
@pytest.mark.parametrize("form", ["torch.save", "pickle", "legacy"])
def test_a_pickle_does_not_run_without_the_opt_in(tmp_path: Path, suffix: str, form: str) -> None:
    path, mark = tmp_path / f"net{suffix}", tmp_path / "ran"
    if form == "pickle":
        path.write_bytes(pickle.dumps(Trap(mark)))
    else:
        torch.save({"state_dict": Trap(mark)}, path, _use_new_zipfile_serialization=form == "torch.save")

    with pytest.raises(
        TrustError, match=r"reading it runs whatever code it holds.*trust=True \(--trust-pickle"
    ) as caught:
        fo.generate(path, normal(4, 8))

    assert isinstance(caught.value, PermissionError)
    assert not mark.exists(), "something in the file ran"
    with pytest.raises(fo.FoOnnxError):
        load_weights(Mlp(), path)
    assert not mark.exists(), "something in the file ran"


def test_with_the_opt_in_a_pickled_module_runs(tmp_path: Path) -> None:
    case = make("mlp")
    torch.save(case.model, tmp_path / "net.pt")

    dists = fo.generate(tmp_path / "net.pt", case.data, trust=True, runner="native")

    assert total_variation(truth(case), dists.probs).max() < 1e-6


def test_a_torchscript_archive_needs_the_opt_in_as_well(tmp_path: Path) -> None:

    case = make("mlp")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        scripted(case.model).save(str(tmp_path / "net.pt"))

    with pytest.raises(TrustError):
        fo.generate(tmp_path / "net.pt", case.data)
    dists = fo.generate(tmp_path / "net.pt", case.data, trust=True, runner="onnx")

    assert total_variation(truth(case), dists.probs).max() < 1e-5


def test_weights_are_no_model(tmp_path: Path) -> None:
    torch.save(Mlp().state_dict(), tmp_path / "net.pt")

    with pytest.raises(ModelError, match="holds weights, not a module: .* --weights"):
        fo.generate(tmp_path / "net.pt", normal(4, 8))


def test_a_trusted_file_that_holds_no_module(tmp_path: Path) -> None:
    torch.save([1, 2], tmp_path / "list.pt")
    (tmp_path / "text.pt").write_text("no pickle")

    with pytest.raises(ModelError, match="list.pt holds a list, no module"):
        fo.generate(tmp_path / "list.pt", normal(4, 8), trust=True)
    with pytest.raises(ModelError, match="reading the module in .*text.pt failed"):
        fo.generate(tmp_path / "text.pt", normal(4, 8), trust=True)
    with pytest.raises(ModelNotFoundError, match="there is no such file"):
        load(tmp_path / "none.pt", trust=True)


@pytest.mark.parametrize("form", ["plain", "checkpoint", "safetensors"])
def test_weights_from_files(tmp_path: Path, form: str) -> None:
    from safetensors.torch import save_file

    torch.manual_seed(1)
    net, other = Mlp(), Mlp()
    if form == "safetensors":
        save_file(net.state_dict(), tmp_path / "w.safetensors")
    else:
        torch.save(
            net.state_dict() if form == "plain" else {"state_dict": net.state_dict(), "epoch": 3}, tmp_path / "w.pt"
        )

    load_weights(other, next(tmp_path.iterdir()))

    for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        assert torch.equal(a, b)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    torch.save(Mlp(classes=3).state_dict(), tmp_path / "w.pt")
    (tmp_path / "w.safetensors").write_bytes(b"\x08\0\0\0\0\0\0\0{}")

    with pytest.raises(ModelError, match="w.pt do not fit the model: .*body.2.weight"):
        load_weights(Mlp(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match="no safetensors file, or is truncated"):
        load_weights(Mlp(), tmp_path / "w.safetensors")
    with pytest.raises(ModelNotFoundError, match="there is no such file"):
        load_weights(Mlp(), tmp_path / "none.pt")


def test_an_exported_program_and_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    exported, rows, path = program(), normal(40, 8), tmp_path / "net.pt2"
    torch.export.save(exported, path)
    with torch.no_grad():
        expected = torch.softmax(exported.module()(torch.from_numpy(rows)).double(), 1).numpy()
    assert row_spread(expected) > 0.05

    for model in (exported, exported.module(), path):
        for runner in ("native", "onnx") if model is path else ("native",):
            dists = fo.generate(model, rows, runner=runner, trust=True)
            assert total_variation(expected, dists.probs).max() < 1e-5
    with pytest.raises(TrustError, match=r"net\.pt2 .*runs whatever code it holds.*trust=True"):
        fo.generate(path, rows)
    with pytest.raises(
        ModelError, match=r"net\.pt2 is a program of torch\.export, a module with code, and no plain weights"
    ):
        load_weights(Mlp(), path)


def test_an_exported_program_as_a_part_keeps_its_mode() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(program().module(), nn.Dropout(0.5), nn.Linear(4, 4))
    flags, rows = [m.training for m in net.modules()], normal(40, 8)
    assert all(flags)
    dists = fo.generate(net, rows, runner="native")
    assert [m.training for m in net.modules()] == flags
    with torch.no_grad():
        expected = torch.softmax(net[2](net[0](torch.from_numpy(rows))).double(), 1).numpy()
    assert total_variation(expected, dists.probs).max() < 1e-6, "nothing is dropped out"


@pytest.mark.parametrize("prepare", [torch.jit.freeze, torch.jit.optimize_for_inference])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_frozen_scriptmodules_have_no_mode(prepare: Any) -> None:
    torch.manual_seed(0)
    net, rows = Mlp().eval(), normal(40, 8)
    with torch.no_grad():
        expected = torch.softmax(net(torch.from_numpy(rows)).double(), 1).numpy()
    frozen = prepare(scripted(net))
    assert not hasattr(frozen, "training")
    for runner in ("native", "auto"):
        assert total_variation(expected, fo.generate(frozen, rows, runner=runner).probs).max() < 1e-5
