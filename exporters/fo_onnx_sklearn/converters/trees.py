"""Decision trees as one ONNX TreeEnsembleRegressor that decides every row as scikit-learn does.

It compares in float64 if its values are float64. So do scikit-learn's trees, after they have rounded the rows to float32,
and the trees of histogram gradient boosting, which take the rows as they are.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class TreeArrays:
    """One tree, as arrays over its m nodes; the first is the root.

    Attributes:
        leaf: (m,) bool.
        left: (m,) the child for x ≤ threshold.
        right: (m,) the other child.
        feature: (m,) the column that is compared.
        threshold: (m,) float64.
        missing_left: (m,) bool, whether NaN goes to the left.
        values: (m, targets) float64, what a row adds that ends in a node; read in leaves only.
    """

    leaf: NDArray[np.bool_]
    left: NDArray[Any]
    right: NDArray[Any]
    feature: NDArray[Any]
    threshold: NDArray[np.float64]
    missing_left: NDArray[Any]
    values: NDArray[np.float64]


def from_tree(tree: Any, values: NDArray[np.float64]) -> TreeArrays:
    """Return a ``sklearn.tree._tree.Tree`` with what its nodes add, (m, targets)."""
    nodes = tree.__getstate__()["nodes"]
    left, right, missing_left = nodes["left_child"], nodes["right_child"], nodes["missing_go_to_left"]
    return TreeArrays(left < 0, left, right, nodes["feature"], nodes["threshold"], missing_left, values)


def from_predictor(predictor: Any, values: NDArray[np.float64]) -> TreeArrays:
    """Return a tree of histogram gradient boosting without sets of categories, with what its nodes add, (m, targets)."""
    nodes = predictor.nodes
    leaf, left, right, missing_left = (nodes[n] for n in ("is_leaf", "left", "right", "missing_go_to_left"))
    return TreeArrays(leaf > 0, left, right, nodes["feature_idx"], nodes["num_threshold"], missing_left, values)


def node_attributes(trees: Sequence[TreeArrays]) -> dict[str, Any]:
    """Return the attributes of a TreeEnsembleRegressor (ai.onnx.ml, operator set 3) that sums what the trees' leaves add.

    All trees have the same number of targets.
    """
    import onnx

    def join(field: str) -> NDArray[Any]:
        return np.concatenate([getattr(tree, field) for tree in trees])

    # The nodes of all trees in one row; numbers of nodes begin anew in each tree, and what a leaf compares is 0.
    leaf, sizes = join("leaf"), [len(t.leaf) for t in trees]
    tree_ids = np.repeat(np.arange(len(trees)), sizes)
    node_ids = np.concatenate([np.arange(n) for n in sizes])
    values = join("values")[leaf]
    targets = values.shape[1]
    inner = {
        name: np.where(leaf, 0, join(field)).astype(np.int64).tolist()
        for name, field in (
            ("nodes_truenodeids", "left"),
            ("nodes_falsenodeids", "right"),
            ("nodes_featureids", "feature"),
            ("nodes_missing_value_tracks_true", "missing_left"),
        )
    }
    return {
        "n_targets": targets,
        "post_transform": "NONE",
        "aggregate_function": "SUM",
        "nodes_treeids": tree_ids.tolist(),
        "nodes_nodeids": node_ids.tolist(),
        "nodes_modes": np.where(leaf, "LEAF", "BRANCH_LEQ").tolist(),
        **inner,
        "nodes_values_as_tensor": onnx.numpy_helper.from_array(np.where(leaf, 0.0, join("threshold"))),
        "target_treeids": np.repeat(tree_ids[leaf], targets).tolist(),
        "target_nodeids": np.repeat(node_ids[leaf], targets).tolist(),
        "target_ids": np.tile(np.arange(targets), int(leaf.sum())).tolist(),
        "target_weights_as_tensor": onnx.numpy_helper.from_array(values.ravel()),
    }
