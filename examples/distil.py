"""Distil a teacher into a student: soft targets against hard labels, on scikit-learn's digits.

    python examples/distil.py

One label in five is drawn at random, as a careless annotator's would be, so that p(y|x) is not all on one class. The
student that learns the labels by heart is sure of itself all the same; the one that learns the teacher's distributions is
not, and its calibration error on held-out digits (labelled by the same annotator) says so.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fo_onnx.data_generator.torch_first_order_generator import FirstOrderDataGenerator, output_dataloader
from fo_onnx.metrics import MetricsAccumulator

HELD_OUT = 360
RANDOM_LABELS = 0.2
EPOCHS = {"teacher": 8, "student": 100}


def digits(rng: np.random.Generator) -> tuple[TensorDataset, TensorDataset]:
    """Images (n, 1, 8, 8) in [0, 1] with their labels, to train on and held out."""
    images, labels = load_digits(return_X_y=True)
    careless = rng.random(len(labels)) < RANDOM_LABELS
    labels = np.where(careless, rng.integers(0, 10, len(labels)), labels)
    x, y = torch.tensor(images / 16, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels)
    order = torch.tensor(rng.permutation(len(labels)))
    train, held_out = order[HELD_OUT:], order[:HELD_OUT]
    return TensorDataset(x[train], y[train]), TensorDataset(x[held_out], y[held_out])


def teacher() -> nn.Module:
    """A small convolutional net."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(32 * 4 * 4, 10),
    )  # fmt: skip


def student() -> nn.Module:
    """One hidden layer, large enough to learn the training labels by heart."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))


def train_on_labels(model: nn.Module, data: TensorDataset, epochs: int) -> nn.Module:
    """Cross-entropy with the labels."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for inputs, labels in DataLoader(data, batch_size=64, shuffle=True):
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def train_on_distributions(model: nn.Module, loader: DataLoader, epochs: int) -> nn.Module:
    """The Kullback-Leibler divergence from the teacher's distributions."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for inputs, _labels, target_dists in loader:
            logits = model(inputs)
            loss = nn.functional.kl_div(nn.functional.log_softmax(logits, dim=-1), target_dists, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def scores(model: nn.Module, data: TensorDataset) -> dict[str, float]:
    """Accuracy, calibration error and NLL on held-out rows."""
    dists = FirstOrderDataGenerator(model, output_mode="logits").run(data, progress=False)
    gathered = MetricsAccumulator(10)
    gathered.update(dists.probs, dists.labels)
    return {name: gathered.result()[name] for name in ("accuracy", "ece", "nll")}


def main() -> None:
    """Trains a teacher and two students, and prints how they do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # the batches are too small to share
    train, held_out = digits(np.random.default_rng(seed))

    taught = train_on_labels(teacher(), train, EPOCHS["teacher"])
    generator = FirstOrderDataGenerator(taught, output_mode="logits", model_name="teacher")
    distributions = generator.generate_distributions(train)
    soft = output_dataloader(train, distributions, batch_size=64, shuffle=True)

    found = {
        "teacher": scores(taught, held_out),
        "student, hard labels": scores(train_on_labels(student(), train, EPOCHS["student"]), held_out),
        "student, soft targets": scores(train_on_distributions(student(), soft, EPOCHS["student"]), held_out),
    }
    print(f"{'':<24}{'accuracy':>10}{'ECE':>10}{'NLL':>10}")
    for name, row in found.items():
        print(f"{name:<24}{row['accuracy']:>10.3f}{row['ece']:>10.3f}{row['nll']:>10.3f}")
    hard, gentle = found["student, hard labels"]["ece"], found["student, soft targets"]["ece"]
    print(
        f"calibration error: {hard:.3f} with hard labels, {gentle:.3f} with soft targets ({hard / gentle:.1f} times less)"
    )


if __name__ == "__main__":
    main()
