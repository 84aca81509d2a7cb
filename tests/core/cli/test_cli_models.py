"""MODEL: references, files, weights, and pickles that must not run."""

from __future__ import annotations

import pickle
import textwrap
from pathlib import Path

import numpy as np
import pytest

from fo_onnx.cli.shared.models import load_model
from fo_onnx.errors import ModelError, ModelNotFoundError, OptionError

torch = pytest.importorskip("torch")
from fo_onnx_torch.demo import DigitNet  # noqa: E402


class Evil:
    """Leaves a mark when it is unpickled."""

    def __reduce__(self):
        return (Path.touch, (Path("ran"),))


@pytest.mark.parametrize("attribute", ["DigitNet", "fresh", "trained"])
def test_classes_and_factories_are_called(work: Path, attribute: str) -> None:
    assert isinstance(load_model(f"app:{attribute}"), DigitNet)


def test_functions_over_arrays_are_the_model(work: Path) -> None:
    model = load_model("app:linear")
    assert model(np.ones((2, 1, 8, 8))).shape == (2, 10)


def test_instances_and_dotted_attributes(work: Path) -> None:
    (work / "held.py").write_text("class Holder:\n    import app\n    net = app.fresh()\n")
    assert isinstance(load_model("held:Holder.net"), DigitNet)


def test_modules_within_packages(work: Path) -> None:
    (work / "pack").mkdir()
    (work / "pack" / "__init__.py").touch()
    (work / "pack" / "nets.py").write_text("from app import fresh\n")
    assert isinstance(load_model("pack.nets:fresh"), DigitNet)


def test_files_stay_paths(work: Path) -> None:
    assert load_model("d.onnx") == Path("d.onnx")


def test_weights_are_filled_in(work: Path) -> None:
    from safetensors.torch import save_file

    wanted = torch.load("w.pt", weights_only=True)
    save_file(wanted, "w.safetensors")
    for file in ("w.pt", "w.safetensors"):
        state = load_model("app:fresh", weights=Path(file)).state_dict()
        assert all(torch.equal(state[k], wanted[k]) for k in wanted)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nosuch:net", "there is no module 'nosuch', neither in .* nor among what is installed"),
        ("app.nosuch:net", r"there is no module 'app\.nosuch'"),
        ("app:nett", r"the module app \(.*app.py\) has no 'nett'. It has Doubting \(class\), .*linear \(function\)"),
        ("app:Wide", "the class needs width, and is called without arguments"),
        ("app:sized", "the factory needs width, and is called without arguments"),
        ("app:failing", "calling the factory failed: RuntimeError: no weights here"),
        ("app:nothing", "the factory returned None; a model was expected"),
        ("nothing.pt", "there is no such file, and it is no package.module:attribute. Suffixes .* are .onnx, .*.pt"),
        ("nothing", "there is no such file, and it is no package.module:attribute"),
        ("broken:net", "importing broken failed: ZeroDivisionError: division by zero"),
        ("leaving:net", "importing leaving failed: SystemExit: 3"),
        ("needing:net", "the module needing needs 'not_there_at_all', which is not installed"),
    ],
)
def test_what_is_no_model(work: Path, text: str, message: str) -> None:
    (work / "broken.py").write_text("1 / 0\n")
    (work / "leaving.py").write_text("import sys; sys.exit(3)\n")
    (work / "needing.py").write_text("import not_there_at_all\n")
    with pytest.raises(ModelError, match=message):
        load_model(text)


def test_instances_are_listed_first(work: Path) -> None:
    (work / "some.py").write_text("import app\nnet = app.fresh()\ndef make(): return net\n")
    with pytest.raises(ModelNotFoundError, match=r"It has net \(DigitNet\), make \(function\)\.$"):
        load_model("some:nett")


def test_weights_that_do_not_fit(work: Path) -> None:
    torch.save({"other": torch.zeros(2)}, "other.pt")
    with pytest.raises(ModelError, match=r"weights in other.pt do not fit the model: .*Missing key"):
        load_model("app:fresh", weights=Path("other.pt"))
    with pytest.raises(ModelNotFoundError, match="no such file"):
        load_model("app:fresh", weights=Path("nothing.pt"))
    with pytest.raises(OptionError, match="was given for d.onnx, an ONNX file, which has its own"):
        load_model("d.onnx", weights=Path("w.pt"))
    (work / "plain.py").write_text("def model(x):\n    return x\n")
    with pytest.raises(ModelError, match="of no framework that is installed has none"):
        load_model("plain:model", weights=Path("w.pt"))


@pytest.mark.parametrize(
    "command",
    [
        "export evil.pt --example x.npy -o e.onnx",
        "verify d.onnx --against evil.pt --data x.npy",
        "generate evil.pt --data x.npy -o e.parquet",
        "generate evil.pt --data x.npy --weights w.pt -o e.parquet",
        "generate evil.pt --data x.npy -o e.parquet --dry-run",
        "generate app:fresh --weights evil.pt --data x.npy -o e.parquet",
    ],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_without_the_opt_in_runs_nothing(run, work: Path, command: str, zipped: bool) -> None:
    if zipped:
        torch.save(Evil(), "evil.pt")
    else:
        Path("evil.pt").write_bytes(pickle.dumps(Evil()))
    result = run(*command.split())
    assert result.exit_code == 1
    assert "--trust-pickle" in result.stderr or "holds no plain weights" in result.stderr
    assert not Path("ran").exists()


def test_a_pickle_with_the_opt_in_is_read(run, work: Path) -> None:
    torch.save(Evil(), "evil.pt")
    run("generate", "evil.pt", "--data", "x.npy", "-o", "e.parquet", "--trust-pickle")
    assert Path("ran").exists()


def test_a_trusted_module_runs(run, work: Path) -> None:
    import fo_onnx

    net = DigitNet()
    net.load_state_dict(torch.load("w.pt", weights_only=True))
    torch.save(net, "net.pt")
    result = run("generate", "net.pt", "--trust-pickle", "--data", "x.npy", "--limit", 100, "-o", "n.parquet")
    assert result.exit_code == 0, result.stderr
    assert np.abs(fo_onnx.load("n.parquet").probs - fo_onnx.load("d.parquet").probs).max() < 1e-5


def test_a_module_of_the_current_folder_is_read_anew_in_each_process(work: Path) -> None:
    (work / "late.py").write_text(textwrap.dedent("def model(x):\n    return x\n"))
    assert load_model("late:model")(3) == 3
