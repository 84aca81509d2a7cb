"""The route of newer versions of jax: which it is, what is missing, and, in an environment of its own, what it gives."""

from __future__ import annotations

import collections
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
from fo_onnx_jax.export import choose_route
from fo_onnx_jax.jax2onnx.export import write_onnx
from fo_onnx_jax.jax2onnx.indices import clamp_indices, clamps_indices, holds_lookups
from fo_onnx_jax.jax2onnx.pools import narrow_pools
from onnx import TensorProto, helper, numpy_helper

from fo_onnx.contracts.spec import TensorSpec
from fo_onnx.errors import PluginError

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
COVERAGE = ROOT / "tests" / "coverage"
CONVERTED = 60
"""The least number of the coverage table's JAX cases that go through ONNX by this route."""


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((0, 4, 38), "jax2tf"),
        ((0, 7), "jax2tf"),
        ((0, 7, 1), "jax2tf"),
        ((0, 7, 2), "jax2onnx"),
        ((0, 10, 2), "jax2onnx"),
        ((1, 0), "jax2onnx"),
    ],
)
def test_the_version_decides(version, expected, monkeypatch):
    monkeypatch.setattr(jax, "__version_info__", version)
    assert choose_route() == expected


def test_missing_jax2onnx_names_the_extra(tmp_path):
    # No version of jax2onnx fits the jax of this environment, so that it cannot be here.
    with pytest.raises(
        PluginError, match=r"jax \d.* is installed, .* jax2onnx is not: pip install 'fo-onnx\[jax2onnx\]'"
    ):
        write_onnx(
            lambda x: x, [TensorSpec("x", "float32", (None, 3))], tmp_path / "net.onnx", opset=18, model_name="net"
        )
    assert list(tmp_path.iterdir()) == []


def pool_as_written(shape, kernel, strides, pads, dilations):
    """A max-pool over all axes of an array, between two axes put in front and taken away, as jax2onnx writes it."""
    rank = len(kernel)
    nodes = [
        helper.make_node("Unsqueeze", ["x", "axes"], ["ahead"]),
        helper.make_node(
            "MaxPool", ["ahead"], ["pooled"], kernel_shape=kernel, strides=strides, pads=pads, dilations=dilations
        ),
        helper.make_node("Squeeze", ["pooled", "axes"], ["y"]),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", *shape[1:]])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None] * rank)]
    axes = helper.make_tensor("axes", TensorProto.INT64, [2], [0, 1])
    graph = helper.make_graph(nodes, "pool", inputs, outputs, [axes])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def run(model, x):
    onnx.checker.check_model(model, full_check=True)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": x}
    )[0]


def pooled_by_jax(x, kernel, strides, pads, dilations):
    rank = len(kernel)
    padding = list(zip(pads[:rank], pads[rank:], strict=True))
    return np.asarray(
        jax.lax.reduce_window(x, -np.inf, jax.lax.max, kernel, strides, padding, window_dilation=dilations)
    )


def ones(rank):
    return (1,) * rank


POOLS = {
    "batch, height, width, channels": ((3, 9, 8, 4), (1, 3, 2, 1), (1, 2, 1, 1), (0, 1, 0, 0, 0, 1, 1, 0), ones(4)),
    "batch, channels, height, width": ((3, 4, 9, 8), (1, 1, 2, 2), (1, 1, 2, 2), (0,) * 8, ones(4)),
    "volumes": ((2, 6, 5, 4, 3), (1, 2, 2, 2, 1), (1, 2, 1, 2, 1), (0, 1, 0, 0, 0, 0, 0, 1, 0, 0), ones(5)),
    "dilated": ((2, 9, 9, 3), (1, 3, 3, 1), (1, 1, 1, 1), (0,) * 8, (1, 2, 2, 1)),
    "one axis of four": ((3, 9, 4, 5), (1, 3, 1, 1), (1, 2, 1, 1), (0,) * 8, ones(4)),
    "a stride without a window": ((3, 9, 8, 4), (1, 1, 2, 1), (1, 2, 1, 1), (0,) * 8, ones(4)),
}


def test_a_pool_looks_nothing_up():
    shape, *window = POOLS["dilated"]
    assert not holds_lookups(pool_as_written(shape, *window).graph)


@pytest.mark.parametrize("name", POOLS)
def test_pools_over_many_axes_run_and_are_right(name):
    shape, *window = POOLS[name]
    # Negative, so that padding with anything but the lowest number would show.
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32) - 5
    model = pool_as_written(shape, *window)
    with pytest.raises(Exception, match="Unsupported pooling size"):
        run(model, x)
    narrow_pools(model.graph)
    np.testing.assert_array_equal(run(model, x), pooled_by_jax(x, *window))


@pytest.mark.parametrize(
    "window",
    [
        ((3, 2, 2), (1, 2, 1), (0,) * 6, ones(3)),
        ((2, 2, 2, 2), (1, 1, 1, 1), (0,) * 8, ones(4)),
        ((1, 2, 2, 2, 2), ones(5), (0,) * 10, ones(5)),
    ],
    ids=["few axes", "no axis is free", "one axis is free"],
)
def test_other_pools_stay(window):
    model = pool_as_written((4,) * len(window[0]), *window)
    before = model.SerializeToString()
    narrow_pools(model.graph)
    assert model.SerializeToString() == before


def test_pools_within_branches_are_found():
    inner = pool_as_written((2, 6, 6, 3), (1, 2, 2, 1), (1, 2, 2, 1), (0,) * 8, ones(4)).graph
    axes = inner.initializer[0]
    branch = helper.make_graph(inner.node, "branch", [], inner.output, [axes])
    outer = helper.make_node("If", ["yes"], ["y"], then_branch=branch, else_branch=branch)
    yes = helper.make_tensor("yes", TensorProto.BOOL, [], [True])
    graph = helper.make_graph([outer], "outer", inner.input, inner.output, [yes])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    x = np.random.default_rng(0).standard_normal((2, 6, 6, 3)).astype(np.float32)
    narrow_pools(model.graph)
    np.testing.assert_array_equal(run(model, x), x.reshape(2, 3, 2, 3, 2, 3).max((2, 4)))


TABLE = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)


@pytest.mark.parametrize(
    ("program", "clamps"),
    [
        (lambda i: jnp.asarray(TABLE)[i], True),
        (jax.jit(lambda i: jnp.take(jnp.asarray(TABLE), i, axis=0, mode="clip")), True),
        (lambda i: jnp.take(jnp.asarray(TABLE), i, axis=0), False),
        (lambda i: jnp.asarray(TABLE)[i] + jnp.take(jnp.asarray(TABLE), i, axis=0), False),
        (lambda i: i * 2.0, False),
    ],
)
def test_which_programs_clamp_their_indices(program, clamps):
    assert clamps_indices(jax.make_jaxpr(program)(jnp.zeros(2, jnp.int32)).jaxpr) is clamps


def test_indices_are_clamped_as_jax_does():
    x = np.array([-7, -1, 0, 4, 5, 99], np.int32)
    nodes = [helper.make_node("Neg", ["x"], ["n"]), helper.make_node("Gather", ["table", "n"], ["y"])]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("x", TensorProto.INT32, ["n"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [None, 3])], [numpy_helper.from_array(TABLE, "table")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    assert holds_lookups(model.graph)
    clamp_indices(model.graph)
    expected = np.asarray(jax.lax.gather(
        TABLE, -x[:, None], jax.lax.GatherDimensionNumbers((1,), (0,), (0,)), (1, 3), mode="clip"
    ))  # fmt: skip
    np.testing.assert_array_equal(run(model, x), expected)


@pytest.fixture(scope="module")
def newer(tmp_path_factory):
    """Python in an environment with a newer jax and this project as a user installs it; skips without a package index."""
    folder = tmp_path_factory.mktemp("jax2onnx")
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True, timeout=120)
    python = str(folder / "bin" / "python")
    install = [python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    done = pip([*install, "--requirement", str(HERE / "jax2onnx.txt")], folder)
    if done.returncode:
        pytest.skip(f"the packages of jax2onnx.txt cannot be installed here: {done.stderr.strip().splitlines()[-1]}")
    # All that it takes is there by now; what its extras ask for has to fit that.
    done = pip([*install, "--no-build-isolation", "--no-index", f"{ROOT}[cpu,jax2onnx]"], folder)
    assert done.returncode == 0, done.stderr
    return python


def pip(command, folder):
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=900)


def environment(folder):
    variables = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    return variables | {"JAX_PLATFORMS": "cpu", "FO_ONNX_CACHE_DIR": str(folder / "cache")}


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(2400)
def test_the_route_in_an_environment_of_its_own(newer, tmp_path):
    # A copy, since pytest would take the configuration of this project for its own, and its sources for what is installed.
    checks = tmp_path / "checks_jax2onnx.py"
    checks.write_text((ROOT / "tests" / "support" / checks.name).read_text(encoding="utf-8"), encoding="utf-8")
    done = subprocess.run(
        [newer, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(checks)],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=1200,
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(3000)
def test_the_cases_of_the_coverage_table(newer, tmp_path):
    if not (COVERAGE / "jax_cases.py").exists():
        pytest.skip("there are no JAX cases of the coverage table")
    done = subprocess.run(
        [newer, COVERAGE / "table.py", "--framework", "jax", "--here"],
        cwd=tmp_path,
        env=environment(tmp_path),
        capture_output=True,
        text=True,
        check=False,
        timeout=2400,
    )
    lines = [line.removeprefix("RESULT ") for line in done.stdout.splitlines() if line.startswith("RESULT ")]
    results = [json.loads(line) for line in lines]
    assert done.returncode == 0, done.stderr[-4000:]
    assert [r for r in results if "error" in r] == []
    wrong = [(r["name"], r["max_tv"]) for r in results if r["max_tv"] is not None and r["max_tv"] > r["tolerance"]]
    assert wrong == []
    ways = collections.Counter(r["onnx"] for r in results)
    reasons = {r["name"]: r["why"] for r in results if not r["onnx"]}
    assert ways[True] >= CONVERTED, reasons
    assert [n for n, why in reasons.items() if not why] == []
