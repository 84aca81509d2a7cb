"""Distil a teacher into a student: soft targets against hard labels, on scikit-learn's digits.

    python examples/distil.py

The images are noisy, as those of a poor camera, so that p(y|x) is not all on one class. A student that learns the labels by
heart is sure of itself all the same; one that learns the distributions of a teacher, whose temperature was fitted on rows of
its own, is not, and its calibration error on held-out digits says so.
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

HELD_OUT, TO_CALIBRATE = 360, 300
NOISE = 0.4
"""Standard deviation, where pixels are in [0, 1]."""
EPOCHS = {"teacher": 10, "student": 60}


def digits(rng: np.random.Generator) -> list[TensorDataset]:
    """Images (n, 1, 8, 8) with their labels: held out, to calibrate with, to train on."""
    images, labels = load_digits(return_X_y=True)
    noisy = images / 16 + NOISE * rng.standard_normal(images.shape)
    x, y = torch.tensor(noisy, dtype=torch.float32).reshape(-1, 1, 8, 8), torch.tensor(labels)
    order = torch.tensor(rng.permutation(len(labels)))
    parts = order.tensor_split([HELD_OUT, HELD_OUT + TO_CALIBRATE])
    return [TensorDataset(x[part], y[part]) for part in parts]


def teacher() -> nn.Module:
    """A small convolutional net."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Dropout(0.5), nn.Linear(32 * 2 * 2, 10),
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


def temperature(model: nn.Module, data: TensorDataset) -> float:
    """T of softmax(z / T) with the least NLL (Guo et al., On Calibration of Modern Neural Networks, 2017, section 4.2)."""
    x, y = data.tensors
    with torch.no_grad():
        logits = model(x)
    candidates = torch.logspace(-1, 1, 200)
    losses = torch.stack([nn.functional.cross_entropy(logits / t, y) for t in candidates])
    return float(candidates[losses.argmin()])


def scores(generator: FirstOrderDataGenerator, data: TensorDataset) -> dict[str, float]:
    """Accuracy, calibration error and NLL on held-out rows."""
    dists = generator.run(data, progress=False)
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
    held_out, to_calibrate, train = digits(np.random.default_rng(seed))

    taught = train_on_labels(teacher(), train, EPOCHS["teacher"])
    t = temperature(taught, to_calibrate)
    generator = FirstOrderDataGenerator(taught, output_transform=lambda logits: torch.softmax(logits / t, -1))
    distributions = generator.generate_distributions(train)
    soft = output_dataloader(train, distributions, batch_size=64, shuffle=True)
    on_labels = train_on_labels(student(), train, EPOCHS["student"])
    on_rows = train_on_distributions(student(), soft, EPOCHS["student"])

    found = {
        "teacher": scores(generator, held_out),
        "student, hard labels": scores(FirstOrderDataGenerator(on_labels, output_mode="logits"), held_out),
        "student, soft targets": scores(FirstOrderDataGenerator(on_rows, output_mode="logits"), held_out),
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
