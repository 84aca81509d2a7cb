"""Nets that have learned something, in int8: within the budget, as accurate, and spot-checked against the original."""

from __future__ import annotations

import numpy as np
import pytest

import fo_onnx as fo

torch = pytest.importorskip("torch")
sklearn_datasets = pytest.importorskip("sklearn.datasets")
nn = torch.nn
TRAINED_ROWS = 900


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Rows (1797, 1, 8, 8) in a fixed random order, and their classes."""
    x, y = sklearn_datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))
    return (x[order] / 16).astype(np.float32).reshape(-1, 1, 8, 8), y[order]


def convolutional():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(),
        nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(32 * 4, 10),
    )  # fmt: skip


def perceptron():
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10))


@pytest.fixture(params=[convolutional, perceptron], ids=lambda make: make.__name__)
def net(request):
    torch.manual_seed(0)
    net, (x, y) = request.param(), digits()
    rows, classes = torch.from_numpy(x[:TRAINED_ROWS]), torch.from_numpy(y[:TRAINED_ROWS])
    optimizer = torch.optim.Adam(net.parameters(), 3e-3)
    for step in range(300):
        batch = torch.arange(step * 64, step * 64 + 64) % TRAINED_ROWS
        loss = nn.functional.cross_entropy(net(rows[batch]), classes[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return net.eval()


def test_a_trained_net_in_int8_is_within_the_budget_and_as_accurate(net):
    x, y = digits()
    float32 = fo.generate(net, x, labels=y, progress=False)
    accuracy = float((float32.probs.argmax(axis=1) == y).mean())
    assert accuracy > 0.95
    for name in ("int8", "int8-edges-signed"):
        lower = fo.generate(net, x, labels=y, precision=name, tv_budget=0.02, progress=False)
        assert lower.meta["engine"]["precision"] == name
        apart = np.abs(lower.probs.astype(np.float64) - float32.probs).sum(axis=1) / 2
        assert 0 < np.percentile(apart, 99) <= 0.03  # judged on 480 of these rows to be within 0.02
        record = lower.meta["precision"]
        assert record["trials"][0]["p99_tv"] <= record["tv_budget"] == 0.02
        assert record["judged_rows"] > 400
        assert abs(float((lower.probs.argmax(axis=1) == y).mean()) - accuracy) < 0.003
        # The float32 file was compared with the original, at the tolerance.
        assert lower.meta["parity"]["passed"]
        assert lower.meta["parity"]["max_tv"] < 1e-4
