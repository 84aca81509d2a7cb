"""--params: the parameters of a model that does not hold them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

import fo_onnx as fo
from fo_onnx.cli.shared.models import load_params
from fo_onnx.errors import ModelError, ModelNotFoundError

W, B = np.eye(4, 3, dtype=np.float32) * 5, np.ones(3, np.float32)
ROWS = np.random.default_rng(0).standard_normal((20, 4), dtype=np.float32)
MODULE = """
import numpy as np
W, B = np.eye(4, 3, dtype=np.float32) * 5, np.ones(3, np.float32)
def linear(params, x):
    return x @ params["w"] + params["b"]
params = {"w": W, "b": B}
def made():
    return params
"""


@pytest.mark.parametrize(
    ("arrays", "expected"),
    [
        ({"w": W, "b": B}, {"w": W, "b": B}),
        ({"params.dense.w": W, "params.dense.b": B}, {"params": {"dense": {"w": W, "b": B}}}),
        ({"params/dense/w": W}, {"params": {"dense": {"w": W}}}),
        ({"mlp/~/linear_0.w": W}, {"mlp/~/linear_0": {"w": W}}),
        ({"0/0": W, "0/1": B, "1/0": B}, ((W, B), (B,))),
    ],
    ids=["flat", "dots", "slashes", "haiku", "positions"],
)
@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_files(tmp_path: Path, arrays: dict[str, np.ndarray], expected: object, suffix: str) -> None:
    path = tmp_path / f"params{suffix}"
    if suffix == ".npz":
        np.savez(path, **arrays)
    else:
        save_file(arrays, path)
    np.testing.assert_equal(load_params(str(path)), expected)


@pytest.mark.parametrize("params", ["nets:params", "nets:made", "p.npz"])
def test_a_run_with_params(run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, params: str) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delitem(__import__("sys").modules, "nets", raising=False)
    (tmp_path / "nets.py").write_text(MODULE)
    np.save("x.npy", ROWS)
    np.savez("p.npz", w=W, b=B)

    done = run("generate", "nets:linear", "--params", params, "--data", "x.npy", "-o", "rows.parquet", "--no-progress")

    assert done.exit_code == 0, done.stderr
    z = np.exp(ROWS @ W + B)
    np.testing.assert_allclose(fo.load("rows.parquet").probs, z / z.sum(1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize("damage", ["no zip", "an array", "truncated"])
def test_damaged_files(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "params.npz"
    if damage == "no zip":
        path.write_text("no")
    elif damage == "an array":
        with path.open("wb") as file:
            np.save(file, W)
    else:
        np.savez(path, w=W)
        path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(
        ModelError, match=r"Reading the parameters .*params\.npz: it is damaged, cut short or of another kind"
    ):
        load_params(str(path))


def test_what_is_no_file_of_parameters(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match="there is no such file, and it is no package.module:attribute"):
        load_params(str(tmp_path / "none.npz"))
    (tmp_path / "params.msgpack").write_bytes(b"")
    with pytest.raises(ModelError, match=r"\.npz, \.safetensors or package\.module:attribute was expected"):
        load_params(str(tmp_path / "params.msgpack"))
    (tmp_path / "p.safetensors").write_bytes(b"no")
    with pytest.raises(ModelError, match=r"Reading the parameters .*p\.safetensors: it is damaged"):
        load_params(str(tmp_path / "p.safetensors"))
