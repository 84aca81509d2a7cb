"""A set of distributions in numbers, computed batch by batch so that they cost no second pass.

All arithmetic is float64. The result does not depend on how rows are cut into batches, up to rounding.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .probabilities import entropy

CALIBRATION_BINS = 15
SMALLEST_PROBABILITY = float(np.finfo(np.float32).tiny)
"""If the true class has less than this (0, say), the NLL takes this, so that one row cannot make it infinite."""


class MetricsAccumulator:
    """Metrics of all rows given to `update`.

    Example:
        >>> import numpy as np
        >>> metrics = MetricsAccumulator(2)
        >>> metrics.update(np.array([[0.25, 0.75]], dtype=np.float32), np.array([1]))
        >>> metrics.result()["accuracy"]
        1.0
    """

    def __init__(self, classes: int) -> None:
        self.classes = classes
        self.rows = 0
        self._entropy = _Spread()
        self._confidence = _Spread()
        self._predicted = np.zeros(classes, dtype=np.int64)
        self._labelled = 0
        self._true = np.zeros(classes, dtype=np.int64)
        self._correct = 0
        self._nll = 0.0
        self._brier = 0.0
        self._edges = np.linspace(0.0, 1.0, CALIBRATION_BINS + 1)
        self._bin_correct = np.zeros(CALIBRATION_BINS, dtype=np.int64)
        self._bin_confidence = np.zeros(CALIBRATION_BINS)

    def update(self, probs: NDArray[np.float32], labels: NDArray[np.int64] | None) -> None:
        """Take more rows, whose shapes and labels are checked already.

        Args:
            probs: (n, k) distributions, float32.
            labels: (n,) true classes in 0 … k − 1, or ``None`` if they are not known.
        """
        n = len(probs)
        if n == 0:
            return
        predicted = probs.argmax(axis=1)
        confidence = probs[np.arange(n), predicted].astype(np.float64)
        self.rows += n
        self._entropy.update(entropy(probs))
        self._confidence.update(confidence)
        self._predicted += np.bincount(predicted, minlength=self.classes)
        if labels is None:
            return
        correct = predicted == labels
        p_true = probs[np.arange(n), labels].astype(np.float64)
        squares = np.einsum("ij,ij->i", probs, probs, dtype=np.float64)
        self._labelled += n
        self._true += np.bincount(labels, minlength=self.classes)
        self._correct += int(np.count_nonzero(correct))
        self._nll -= float(np.log(np.maximum(p_true, SMALLEST_PROBABILITY)).sum())
        # Σ (p − y)² with a one-hot y, multiplied out; rounding may take it a hair below 0.
        self._brier += float(np.maximum(squares - 2 * p_true + 1, 0).sum())
        # A confidence of exactly 0 belongs to the first bin, which is closed on the left too.
        bins = np.clip(np.searchsorted(self._edges, confidence, side="left") - 1, 0, CALIBRATION_BINS - 1)
        self._bin_correct += np.bincount(bins[correct], minlength=CALIBRATION_BINS)
        self._bin_confidence += np.bincount(bins, weights=confidence, minlength=CALIBRATION_BINS)

    def result(self) -> dict[str, Any]:
        """Return the metrics of all rows so far, as JSON types.

        Returns:
            ``rows``; ``entropy`` (Shannon, in nats: Shannon, A Mathematical Theory of Communication, 1948, section 6)
            and ``confidence`` (the largest probability of a row), each with ``mean``, ``min`` and ``max``;
            ``predicted_classes``, how often each class has the largest probability (the first one among equals).
            With labels also ``labelled_rows``, ``true_classes`` and, over those rows, ``accuracy`` and

            - ``nll``, the mean negative natural logarithm of the true class's probability, −(1/n) Σ ln p(yᵢ | xᵢ), where
              one below `SMALLEST_PROBABILITY` counts as that (about 87.3 nats);
            - ``brier``, the mean of Σₖ (p(k | xᵢ) − [yᵢ = k])², between 0 and 2;
            - ``ece``, the expected calibration error Σ_b (n_b / n) · |accuracy of b − mean confidence of b| over 15 bins
              of equal width, closed on the right.

            What has no rows to be computed from is ``None``.
        # source: Good, Rational Decisions, Journal of the Royal Statistical Society B 14, 1952 (the logarithmic score).
        # source: Brier, Verification of Forecasts Expressed in Terms of Probability, Monthly Weather Review 78, 1950.
        # source: Naeini, Cooper, Hauskrecht, Obtaining Well Calibrated Probabilities Using Bayesian Binning, AAAI 2015;
        # with the bins of Guo et al., On Calibration of Modern Neural Networks, ICML 2017, equation 3.
        """
        result: dict[str, Any] = {
            "rows": self.rows,
            "entropy": self._entropy.result(self.rows),
            "confidence": self._confidence.result(self.rows),
            "predicted_classes": self._predicted.tolist(),
        }
        if self._labelled:
            result |= {
                "labelled_rows": self._labelled,
                "accuracy": self._correct / self._labelled,
                "nll": max(self._nll / self._labelled, 0.0),
                "brier": self._brier / self._labelled,
                "ece": float(np.abs(self._bin_correct - self._bin_confidence).sum() / self._labelled),
                "true_classes": self._true.tolist(),
            }
        return result


class _Spread:
    """Sum, smallest and largest of a stream of numbers."""

    def __init__(self) -> None:
        self.sum = 0.0
        self.min = math.inf
        self.max = -math.inf

    def update(self, values: NDArray[np.float64]) -> None:
        self.sum += float(values.sum())
        self.min = min(self.min, float(values.min()))
        self.max = max(self.max, float(values.max()))

    def result(self, rows: int) -> dict[str, float | None]:
        if rows == 0:
            return {"mean": None, "min": None, "max": None}
        # Adding 0 turns −0.0, the entropy of a one-hot row, into 0.0.
        return {"mean": self.sum / rows + 0.0, "min": self.min + 0.0, "max": self.max + 0.0}
