"""What else decides on a row besides its input: chance, the rows beside it, and the size of its batch.

Three things are told apart. A model *samples* if two runs of one batch differ. It *mixes* rows if a row changes when only
its companions change, at the same place of a batch of the same size, where rounding has no reason to differ. What is left
between batch sizes is *noise*: other kernels, other orders of summation. Nobody can be nearer to a model than it is to itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..contracts.batch import Array, Inputs, count_rows
from ..distributions.probabilities import total_variation
from ..errors import OutputError

Floats = NDArray[np.float64]
Run = Callable[[Inputs], Floats]
"""Gives the distributions (n, k) of a batch; a row that has none is not finite."""
FEW_ROWS = 16
"""Rows per batch of these runs: enough companions, and few enough to cost little."""
SAMPLING_TOLERANCE = 1e-6
MIXING_TOLERANCE = 1e-5
"""Kernels that group rows by content, as mixtures of experts do, round in the last digits by their companions."""
NOISE_LIMIT = 1e-2
"""Rows that differ by more between batch sizes owe it to the model's code, not to rounding."""


@dataclass(frozen=True)
class BatchEffects:
    """How much rows depend on other things than their input, as the largest total variation of a row.

    Attributes:
        sampling: Between two runs of one batch.
        mixing: Between two runs in which only its companions differ; 0 where it was not measured.
        together: (n, k) the distributions of the first rows in the first of these runs.
    """

    sampling: float
    mixing: float
    together: Floats

    @property
    def samples(self) -> bool:
        """Return whether the model gives other rows each time."""
        return self.sampling > SAMPLING_TOLERANCE

    @property
    def dependence(self) -> str | None:
        """Return in one sentence what a row depends on besides its input; ``None`` if on nothing."""
        if self.samples:
            return (
                "the model samples in evaluation mode: it gives other rows each time (a total variation of up to "
                f"{self.sampling:.2e}), so that a row has no distribution of its own"
            )
        if self.mixing > MIXING_TOLERANCE:
            return (
                "the model mixes the rows of a batch: a row differs by a total variation of up to "
                f"{self.mixing:.2e} when only the rows beside it change, so that it has no distribution of its own"
            )
        return None


def measure_batch_effects(run: Run, inputs: Inputs, size: int) -> BatchEffects:
    """Run a few rows with themselves and with others beside them.

    Args:
        run: Runs the model.
        inputs: Some rows, at least one.
        size: Rows per batch. If there are not as many others, to take their places, a batch has a few.
    """
    rows = count_rows(inputs)
    # The same rows in another order would change no mean, and no largest row.
    size = size if 2 * size <= rows else min(size, rows, FEW_ROWS)
    batch = {name: array[:size] for name, array in inputs.items()}
    together = run(batch)
    sampling = float(row_distances(together, run(batch)).max(initial=0.0))
    if size < 2 or sampling > SAMPLING_TOLERANCE:
        return BatchEffects(sampling, 0.0, together)
    # Half of the rows stay where they are, and the other half is replaced; then the other way round.
    stays = np.zeros(size, bool)
    stays[np.random.default_rng(0).permutation(size)[: size // 2]] = True
    others = np.arange(size, 2 * size) % rows if rows > size else np.roll(np.arange(size), 1)
    mixing = 0.0
    for same in (stays, ~stays):
        changed = {name: _replace_rows(array, ~same, others) for name, array in inputs.items()}
        mixing = max(mixing, float(row_distances(together, run(changed))[same].max(initial=0.0)))
    return BatchEffects(sampling, mixing, together)


def row_distances(expected: Floats, probs: Floats) -> Floats:
    """Return the total variation of each pair of rows (n,); 0 if neither is a distribution, 1 if only one is."""
    if expected.shape != probs.shape:
        raise OutputError(
            f"it gives distributions of shape {probs.shape}, and the original gives {expected.shape}; is it of another model?"
        )
    bad, worse = without_distribution(expected), without_distribution(probs)
    return np.where(bad & worse, 0.0, np.where(bad | worse, 1.0, total_variation(expected, probs)))


def without_distribution(probs: Floats) -> NDArray[np.bool_]:
    """Return which rows of (n, k) are no distribution (n,)."""
    return np.logical_not(np.isfinite(probs).all(axis=1))


def _replace_rows(array: Array, replaced: NDArray[np.bool_], others: NDArray[np.int64]) -> Array:
    changed = array[: len(replaced)].copy()
    changed[replaced] = array[others[replaced]]
    return changed
