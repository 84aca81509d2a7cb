"""Distil a teacher into a student: soft targets against hard labels, on scikit-learn's digits.

    python examples/distil.py

The images are noisy, as those of a poor camera, so that p(y|x) is not all on one class. A student that learns the labels by
heart is sure of itself all the same. A student that learns the distributions of a calibrated teacher is not, and has a lower
calibration error on held-out digits.
"""

from __future__ import annotations

import argparse

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from fo_onnx.data_generator.torch_first_order_generator import FirstOrderDataGenerator, output_dataloader

HELD_OUT, TO_CALIBRATE = 360, 300
NOISE = 0.4
"""Standard deviation; pixels are in [0, 1]."""
EPOCHS = {"teacher": 10, "student": 60}


def load_splits(rng: np.random.Generator) -> list[TensorDataset]:
    """Return images (n, 1, 8, 8) with their labels: held out, to calibrate with, to train on."""
    images, labels = load_digits(return_X_y=True)
    noisy = images / 16 + NOISE * rng.standard_normal(images.shape)
    x, y = torch.tensor(noisy, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels)
    order = torch.tensor(rng.permutation(len(labels)))
    parts = order.tensor_split([HELD_OUT, HELD_OUT + TO_CALIBRATE])
    return [TensorDataset(x[part], y[part]) for part in parts]


def make_teacher() -> nn.Module:
    """Return a small convolutional net."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(32 * 2 * 2, 10),
    )  # fmt: skip


def make_student() -> nn.Module:
    """Return a net of one hidden layer, large enough to learn the training labels by heart."""
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 10))


def train_on_labels(model: nn.Module, data: TensorDataset, epochs: int) -> nn.Module:
    """Minimise the cross-entropy with the labels."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for inputs, labels in DataLoader(data, batch_size=64, shuffle=True):
            loss = nn.functional.cross_entropy(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def train_on_distributions(model: nn.Module, loader: DataLoader, epochs: int) -> nn.Module:
    """Minimise the Kullback-Leibler divergence from the teacher's distributions."""
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(epochs):
        for inputs, _labels, target_dists in loader:
            logits = model(inputs)
            loss = nn.functional.kl_div(nn.functional.log_softmax(logits, dim=-1), target_dists, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return model.eval()


def fit_temperature(model: nn.Module, data: TensorDataset) -> float:
    """Return T of softmax(z / T) with the least NLL (Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2)."""
    x, y = data.tensors
    with torch.no_grad():
        logits = model(x)
    candidates = torch.logspace(-1, 1, 200)
    losses = torch.stack([nn.functional.cross_entropy(logits / t, y) for t in candidates])
    return float(candidates[losses.argmin()])


def measure(generator: FirstOrderDataGenerator, data: TensorDataset) -> dict[str, float]:
    """Return accuracy, calibration error and NLL on held-out rows."""
    dists = generator.run(data, progress=False)
    return {name: dists.metrics()[name] for name in ("accuracy", "ece", "nll")}


def main() -> None:
    """Train a teacher and two students, and print how they do."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seed", type=int, default=0)
    seed = parser.parse_args().seed
    torch.manual_seed(seed)
    torch.set_num_threads(1)  # the batches are too small to share
    held_out, to_calibrate, train = load_splits(np.random.default_rng(seed))

    # The teacher, calibrated, and its distributions of the training images.
    teacher = train_on_labels(make_teacher(), train, EPOCHS["teacher"])
    t = fit_temperature(teacher, to_calibrate)
    generator = FirstOrderDataGenerator(teacher, output_transform=lambda logits: torch.softmax(logits / t, -1))
    distributions = generator.generate_distributions(train)

    # Two students: one learns the labels, one the distributions.
    soft_targets = output_dataloader(train, distributions, batch_size=64, shuffle=True)
    on_labels = train_on_labels(make_student(), train, EPOCHS["student"])
    on_distributions = train_on_distributions(make_student(), soft_targets, EPOCHS["student"])

    # All three on digits that none of them has seen.
    scores = {
        "teacher": measure(generator, held_out),
        "student, hard labels": measure(FirstOrderDataGenerator(on_labels, output_mode="logits"), held_out),
        "student, soft targets": measure(FirstOrderDataGenerator(on_distributions, output_mode="logits"), held_out),
    }
    print(f"{'':<24}{'accuracy':>10}{'ECE':>10}{'NLL':>10}")
    for name, row in scores.items():
        print(f"{name:<24}{row['accuracy']:>10.3f}{row['ece']:>10.3f}{row['nll']:>10.3f}")
    hard, soft = scores["student, hard labels"]["ece"], scores["student, soft targets"]["ece"]
    print(
        f"calibration error: {hard:.3f} with hard labels, {soft:.3f} with soft targets ({hard / soft:.1f} times less)"
    )


if __name__ == "__main__":
    main()
