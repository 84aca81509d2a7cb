"""Decision trees as one ONNX TreeEnsembleRegressor, with thresholds that decide every row as scikit-learn does.

scikit-learn's trees round a row to float32 and compare it with a threshold in float64. ONNX compares float32 with
float32, so a threshold is rounded towards minus infinity: no float32 lies between the two, and x ≤ t holds for the same x.
Histogram gradient boosting compares in float64, and so does the operator if its values are float64.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fo_onnx.errors import ExportError

LEAF = -1


@dataclass(frozen=True)
class TreeArrays:
    """One tree, as arrays over its m nodes; the first is the root.

    Attributes:
        left: (m,) the child for x ≤ threshold; -1 in leaves.
        right: (m,) the other child.
        feature: (m,) the column that is compared.
        threshold: (m,) float64.
        missing_left: (m,) bool, whether NaN goes to the left.
        values: (m, targets) float64, what a row adds that ends in a node; read in leaves only.
    """

    left: NDArray[Any]
    right: NDArray[Any]
    feature: NDArray[Any]
    threshold: NDArray[np.float64]
    missing_left: NDArray[np.bool_]
    values: NDArray[np.float64]


def from_tree(tree: Any, values: NDArray[np.float64], columns: NDArray[Any] | None = None) -> TreeArrays:
    """Return a ``sklearn.tree._tree.Tree`` with what its leaves add.

    Args:
        tree: The fitted estimator's ``tree_``.
        values: (m, targets).
        columns: The columns of the ensemble's rows that the tree was fitted on, if not all of them.
    """
    nodes = tree.__getstate__()["nodes"]
    feature = np.maximum(nodes["feature"], 0)
    missing = nodes["missing_go_to_left"] if "missing_go_to_left" in nodes.dtype.names else np.zeros(len(nodes))
    return TreeArrays(
        left=nodes["left_child"],
        right=nodes["right_child"],
        feature=feature if columns is None else np.asarray(columns)[feature],
        threshold=nodes["threshold"],
        missing_left=missing.astype(bool),
        values=values,
    )


def from_predictor(predictor: Any, target: int, targets: int) -> TreeArrays:
    """Return a tree of histogram gradient boosting, which adds to one of the scores.

    Raises:
        ExportError: It splits by sets of categories.
    """
    nodes = predictor.nodes
    if nodes["is_categorical"].any():
        raise ExportError(
            "a tree of HistGradientBoostingClassifier splits by sets of categories, which ONNX's trees do not."
        )
    leaf = nodes["is_leaf"].astype(bool)
    values = np.zeros((len(nodes), targets))
    values[:, target] = nodes["value"]
    return TreeArrays(
        left=np.where(leaf, LEAF, nodes["left"].astype(np.int64)),
        right=np.where(leaf, LEAF, nodes["right"].astype(np.int64)),
        feature=np.where(leaf, 0, nodes["feature_idx"].astype(np.int64)),
        threshold=nodes["num_threshold"],
        missing_left=nodes["missing_go_to_left"].astype(bool),
        values=values,
    )


def round_down(thresholds: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the largest float32 that is not above each threshold."""
    with np.errstate(over="ignore", under="ignore"):
        nearest = thresholds.astype(np.float32)
        below = np.nextafter(nearest, np.float32(-np.inf))
        return np.where(nearest > thresholds, below, nearest).astype(np.float32)


def node_attributes(trees: Sequence[TreeArrays], *, double: bool) -> dict[str, Any]:
    """Return the attributes of a TreeEnsembleRegressor (ai.onnx.ml, operator set 3) that sums what the trees' leaves add.

    Args:
        trees: The trees; all have the same number of targets.
        double: Compare rows in float64, as they come, instead of in float32.
    """
    # The nodes of all trees in one row; numbers of nodes begin anew in each tree.
    sizes = [len(t.left) for t in trees]
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(n) for n in sizes])
    left = np.concatenate([t.left for t in trees])
    leaf = left == LEAF
    right = np.concatenate([t.right for t in trees])
    missing = np.concatenate([t.missing_left for t in trees])
    feature = np.concatenate([t.feature for t in trees])
    thresholds = np.where(leaf, 0.0, np.concatenate([t.threshold for t in trees]))
    values = np.concatenate([t.values for t in trees])[leaf]
    targets = values.shape[1]
    attributes: dict[str, Any] = {
        "n_targets": targets,
        "post_transform": "NONE",
        "aggregate_function": "SUM",
        "nodes_treeids": tree_ids.tolist(),
        "nodes_nodeids": node_ids.tolist(),
        "nodes_featureids": np.where(leaf, 0, feature).tolist(),
        "nodes_modes": ["LEAF" if is_leaf else "BRANCH_LEQ" for is_leaf in leaf],
        "nodes_truenodeids": np.where(leaf, 0, left).tolist(),
        "nodes_falsenodeids": np.where(leaf, 0, right).tolist(),
        "nodes_missing_value_tracks_true": np.where(leaf, 0, missing).astype(int).tolist(),
        "target_treeids": np.repeat(tree_ids[leaf], targets).tolist(),
        "target_nodeids": np.repeat(node_ids[leaf], targets).tolist(),
        "target_ids": np.tile(np.arange(targets), int(leaf.sum())).tolist(),
    }
    if double:
        attributes["nodes_values_as_tensor"] = _tensor(thresholds)
        attributes["target_weights_as_tensor"] = _tensor(values.ravel())
    else:
        attributes["nodes_values"] = round_down(thresholds).tolist()
        attributes["target_weights"] = values.ravel().astype(np.float32).tolist()
    return attributes


def _tensor(values: NDArray[np.float64]) -> Any:
    import onnx

    return onnx.numpy_helper.from_array(values.astype(np.float64))
