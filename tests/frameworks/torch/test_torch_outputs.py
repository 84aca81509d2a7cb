"""Outputs of torch modules that are not (n, classes) of floats, in every way to run and in an exported file."""

from __future__ import annotations

import numpy as np
import pytest

import fo_onnx as fo
from fo_onnx.distributions.probabilities import softmax, total_variation

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch_nets import Mlp, normal  # noqa: E402

X = normal(40, 8)
RUNNERS = ("onnx", "native", "auto")


class Ending(Mlp):
    """A net with a function behind it."""

    def __init__(self, ending) -> None:
        super().__init__()
        self.ending = ending

    def forward(self, x):
        return self.ending(super().forward(x))


def raw_of(net: nn.Module) -> np.ndarray:
    with torch.no_grad():
        return net(torch.from_numpy(X)).numpy()


def worst(dists: fo.Distributions, want: np.ndarray) -> float:
    return float(total_variation(dists.probs, want).max())


@pytest.mark.parametrize(
    ("ending", "kind"),
    [
        (lambda z: z[:, None], "logits"),
        (lambda z: z.softmax(1)[:, :, None, None], "probs"),
        (lambda z: z.log_softmax(1)[:, :, None], "log_probs"),
        (lambda z: z[:, None, :1], "binary_logits"),
    ],
)
def test_axes_of_one_beside_the_classes_are_dropped(tmp_path, ending, kind):
    torch.manual_seed(0)
    net = Ending(ending).eval()
    raw = raw_of(net).reshape(len(X), -1).astype(np.float64)
    want = {
        "logits": softmax(raw),
        "probs": raw,
        "log_probs": np.exp(raw),
        "binary_logits": softmax(np.concatenate([np.zeros_like(raw), raw], axis=1)),
    }[kind]
    for runner in RUNNERS:
        dists = fo.generate(net, X, runner=runner, batch_size=13)
        assert worst(dists, want) < 1e-5
        assert dists.meta["model"]["output"] == kind
    # In the file they are dropped too, also for one row.
    file = fo.export(net, X, tmp_path / "net.onnx")
    assert file.parity.passed
    assert worst(fo.generate(file.path, X), want) < 1e-5
    assert worst(fo.generate(file.path, X[:1]), want[:1]) < 1e-5
    assert fo.verify(file.path, net, X).passed


@pytest.mark.parametrize("columns", [4, 1])
def test_a_module_that_squeezes_its_output(columns):
    """Of a batch of one row it leaves no batch axis; the last batch of 40 rows in thirteens is one."""
    torch.manual_seed(0)
    net = Ending(lambda z: z[:, :columns].squeeze()).eval()
    raw = raw_of(net).reshape(len(X), -1).astype(np.float64)
    want = softmax(raw if columns > 1 else np.concatenate([np.zeros_like(raw), raw], axis=1))
    for runner in RUNNERS:
        for size in (13, 1):
            assert worst(fo.generate(net, X, runner=runner, batch_size=size), want) < 1e-5


@pytest.mark.parametrize(
    "ending",
    [
        lambda z: torch.stack([z, -z], 1),
        lambda z: torch.stack([z, -z], 1)[:, :, :, None],
        lambda z: (z * 8 + 128).clamp(0, 255).to(torch.uint8),
        lambda z: z > 0,
    ],
    ids=["three axes", "four axes", "uint8", "bool"],
)
def test_an_output_transform_takes_any_output(ending):
    torch.manual_seed(0)
    net = Ending(ending).eval()

    def transform(raw):
        return softmax(raw.reshape(len(raw), -1).astype(np.float64) / (8 if raw.dtype == np.uint8 else 1))

    for runner in RUNNERS:
        assert (
            worst(fo.generate(net, X, runner=runner, batch_size=13, output_transform=transform), transform(raw_of(net)))
            < 1e-5
        )
