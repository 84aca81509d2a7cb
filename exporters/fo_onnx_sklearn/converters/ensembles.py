"""Converters of classifiers: trees, forests, boosting, bagging, votes, calibration, and linear discriminant analysis.

Each takes what skl2onnx gives a converter (scope, operator, container) and writes the estimator in float64. A comment says
what skl2onnx 1.20 does otherwise.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .graph import DOUBLE, FLOAT, INT64, Converter, Graph
from .trees import TreeArrays, from_predictor, from_tree, node_attributes

Writer = Callable[[Graph, Any], str]
"""Writes what an estimator gives into a graph, and returns the name of it."""


def classifier_converters() -> dict[type, Converter]:
    """Return converters by class of estimator, as ``convert_sklearn(custom_conversion_functions=…)`` takes them."""
    from sklearn import calibration, discriminant_analysis, ensemble, naive_bayes, pipeline, tree

    from .calibration import calibrated

    return {
        tree.DecisionTreeClassifier: _converter(_mean_of_trees),
        tree.ExtraTreeClassifier: _converter(_mean_of_trees),
        ensemble.RandomForestClassifier: _converter(_mean_of_trees),
        ensemble.ExtraTreesClassifier: _converter(_mean_of_trees),
        # The exponential loss is fitted by half the log odds (Friedman et al., Additive logistic regression, 2000, section 4.1).
        ensemble.GradientBoostingClassifier: _converter_of_scores(
            _gradient_boosting, lambda e: 2.0 if e.loss == "exponential" else 1.0
        ),
        ensemble.HistGradientBoostingClassifier: _converter_of_scores(_hist_gradient_boosting),
        # SAMME's distributions (Zhu et al., Multi-class AdaBoost, 2009, algorithm 2).
        ensemble.AdaBoostClassifier: _converter_of_scores(_ada_boost, lambda e: 1 / (len(e.classes_) - 1)),
        ensemble.BaggingClassifier: _bagging,
        ensemble.VotingClassifier: _converter(_voting),
        calibration.CalibratedClassifierCV: _converter(calibrated),
        discriminant_analysis.LinearDiscriminantAnalysis: _converter_of_scores(_lda),
        naive_bayes.CategoricalNB: _converter(_categorical_nb),
        pipeline.Pipeline: _pipeline,
    }


def _converter(probabilities: Writer, scores: Writer | None = None) -> Converter:
    """Return a converter that writes the distributions, and the label by them.

    Args:
        probabilities: Writes the distributions (n, k).
        scores: Writes the decision function instead, (n, k), of two classes [−z, z], if there is one; asked for by
            ``raw_scores``, as calibration does, which prefers it to distributions.
    """

    def convert(scope: Any, operator: Any, container: Any) -> None:
        graph, estimator = Graph(scope, operator, container), operator.raw_operator
        write = scores if scores is not None and _raw_scores_asked(estimator, container) else probabilities
        graph.finish(write(graph, estimator), np.asarray(estimator.classes_))

    return convert


def _converter_of_scores(write: Writer, factor: Callable[[Any], float] = lambda estimator: 1.0) -> Converter:
    """Return a converter of an estimator by its raw scores, (n, 1) of two classes, else (n, k); `factor` makes them logits."""

    def probabilities(graph: Graph, estimator: Any) -> str:
        logits = graph.node("Mul", [write(graph, estimator), graph.constant(factor(estimator))])
        if len(estimator.classes_) > 2:
            return graph.node("Softmax", [logits], axis=1)
        second = graph.node("Sigmoid", [logits])
        return graph.node("Concat", [graph.node("Sub", [graph.constant(1.0), second]), second], axis=1)

    def scores(graph: Graph, estimator: Any) -> str:
        raw = write(graph, estimator)
        return raw if len(estimator.classes_) > 2 else graph.node("Concat", [graph.node("Neg", [raw]), raw], axis=1)

    return _converter(probabilities, scores)


def _raw_scores_asked(estimator: Any, container: Any) -> bool:
    return bool(container.get_options(estimator, {"raw_scores": False}, fail=False)["raw_scores"])


def _pipeline(scope: Any, operator: Any, container: Any) -> None:
    # skl2onnx gives the last step an option that not all have, and keeps the one for decision functions from it.
    from skl2onnx._parse import _parse_sklearn

    model, outputs = operator.raw_operator, operator.inputs
    last = model.steps[-1][1]
    wanted = {"zipmap": False, "raw_scores": _raw_scores_asked(model, container)}
    options = {k: v for k, v in wanted.items() if container.has_options(last, k)}
    scope.add_options(id(last), options)
    container.add_options(id(last), options)
    for _, step in model.steps:
        outputs = _parse_sklearn(scope, step, outputs, custom_parsers=None)
    graph = Graph(scope, operator, container)
    for last_output, output in zip(outputs, operator.outputs, strict=True):
        if isinstance(output.type, type(last_output.type)):
            graph.node("Identity", [last_output.full_name], output.full_name)
        else:
            graph.node("Cast", [last_output.full_name], output.full_name, to=DOUBLE)


def _bagging(scope: Any, operator: Any, container: Any) -> None:
    # skl2onnx also writes members that give no distributions or fewer columns; the file then fails in ONNX Runtime.
    from skl2onnx.operator_converters.bagging import convert_sklearn_bagging_classifier

    model, members = operator.raw_operator, operator.raw_operator.estimators_
    gives_probs = _raw_scores_asked(model, container) or all(hasattr(m, "predict_proba") for m in members)
    if not gives_probs or any(len(m.classes_) < len(model.classes_) for m in members):
        raise NotImplementedError(
            "BaggingClassifier has members without predict_proba, or that have not seen every class"
        )
    convert_sklearn_bagging_classifier(scope, operator, container)


# Trees and sums of trees -----------------------------------------------------------------------------------------


def _sum_of_trees(graph: Graph, trees: Sequence[TreeArrays], width: int, rows: str | None = None) -> str:
    """Write the sum over all trees' leaves, (n, targets), in float64; of the rows rounded to float32, if no others are given.

    `width` is the number of columns.
    """
    if rows is None:
        # A number that float32 does not hold is refused.
        rows = graph.cast(graph.cast(graph.rows(), FLOAT), DOUBLE)
        graph.refuse_infinity(rows, width, takes_nan=True)
    attributes = node_attributes(trees)
    total = graph.node("TreeEnsembleRegressor", [rows], domain="ai.onnx.ml", op_version=3, **attributes)
    return graph.cast(total, DOUBLE)


def _spread(values: NDArray[Any], target: int, targets: int) -> NDArray[np.float64]:
    """Return what the nodes of a tree add, (m,), as the column `target` of zeros (m, targets)."""
    return np.where(np.arange(targets) == target, values[:, None], 0.0)


def _mean_of_trees(graph: Graph, estimator: Any) -> str:
    # On rows in float64 skl2onnx rounds thresholds to float32 and compares float64 with them: one row in ten flips.
    members = getattr(estimator, "estimators_", [estimator])
    trees = []
    for member in members:
        values = np.asarray(member.tree_.value[:, 0, :], np.float64)
        trees.append(from_tree(member.tree_, values / values.sum(axis=1, keepdims=True)))
    total = _sum_of_trees(graph, trees, estimator.n_features_in_)
    # Divided last, as scikit-learn does: the scores of pure leaves are the same to the last bit, on which calibration relies.
    return total if len(members) == 1 else graph.node("Div", [total, graph.constant(float(len(members)))])


def _gradient_boosting(graph: Graph, estimator: Any) -> str:
    from sklearn.dummy import DummyClassifier

    if not isinstance(estimator.init_, DummyClassifier | str):
        raise NotImplementedError(
            f"GradientBoostingClassifier starts from another estimator, {type(estimator.init_).__name__}"
        )
    # The trees of each stage add to one of the scores, in steps of the learning rate.
    rate, targets = estimator.learning_rate, estimator.estimators_.shape[1]
    trees = [
        from_tree(member.tree_, _spread(rate * member.tree_.value[:, 0, 0], target, targets))
        for stage in estimator.estimators_
        for target, member in enumerate(stage)
    ]
    start = np.asarray(estimator._raw_predict_init(np.zeros((1, estimator.n_features_in_), np.float32)), np.float64)
    total = _sum_of_trees(graph, trees, estimator.n_features_in_)
    return graph.node("Add", [total, graph.constant(start.reshape(1, targets))])


def _hist_gradient_boosting(graph: Graph, estimator: Any) -> str:
    # skl2onnx fails on the array of starting values, and keeps thresholds in float32.
    if estimator.is_categorical_ is not None:
        raise NotImplementedError("HistGradientBoostingClassifier was fitted with categorical_features")
    targets = estimator.n_trees_per_iteration_
    trees = [
        from_predictor(predictor, _spread(predictor.nodes["value"], target, targets))
        for stage in estimator._predictors
        for target, predictor in enumerate(stage)
    ]
    start = graph.constant(np.asarray(estimator._baseline_prediction, np.float64).reshape(1, targets))
    return graph.node("Add", [_sum_of_trees(graph, trees, estimator.n_features_in_, graph.rows()), start])


def _ada_boost(graph: Graph, estimator: Any) -> str:
    """Write the weighted mean of the members' votes, of two classes their difference.

    A vote is decided here, in float64: two classes of a leaf that are equal but for their last bits would be a tie in
    float32. skl2onnx mixes float32 and float64.
    """
    count, total = len(estimator.classes_), estimator.estimator_weights_.sum()
    classes, factor = (estimator.classes_, 1.0) if count > 2 else (estimator.classes_[1:], 2.0)
    trees = []
    for weight, member in zip(estimator.estimator_weights_, estimator.estimators_, strict=False):
        if not hasattr(member, "tree_"):
            raise NotImplementedError(f"AdaBoostClassifier of {type(member).__name__} has no converter in float64")
        best = member.classes_[member.tree_.value[:, 0, :].argmax(axis=1)]
        votes = np.where(best[:, None] == classes[None, :], weight, -weight / (count - 1))
        trees.append(from_tree(member.tree_, votes / total * factor))
    return _sum_of_trees(graph, trees, estimator.n_features_in_)


def _voting(graph: Graph, estimator: Any) -> str:
    # skl2onnx refuses flatten_transform=True, which says nothing of predict_proba, and takes weights as an array only.
    weights = estimator._weights_not_none
    shares = np.ones(len(estimator.estimators_)) if weights is None else np.asarray(weights, np.float64)
    parts = [
        graph.node("Mul", [graph.member(m), graph.constant(float(w))])
        for m, w in zip(estimator.estimators_, shares / shares.sum(), strict=True)
    ]
    return graph.node("Sum", parts)


# No trees --------------------------------------------------------------------------------------------------------


def _lda(graph: Graph, estimator: Any) -> str:
    # For two classes skl2onnx takes a softmax of [−z, z], which is the sigmoid of 2z.
    scores = graph.node("MatMul", [graph.rows(), graph.constant(np.asarray(estimator.coef_, np.float64).T)])
    return graph.node("Add", [scores, graph.constant(np.asarray(estimator.intercept_, np.float64))])


def _categorical_nb(graph: Graph, estimator: Any) -> str:
    """Write the sum of the log probabilities of each column's category. A category that the fit had no place for is refused."""
    # skl2onnx ends the run at such a category.
    terms = [graph.constant(np.asarray(estimator.class_log_prior_, np.float64)[None, :])]
    for (column, _), table in zip(graph.columns(), estimator.feature_log_prob_, strict=True):
        count = table.shape[1]
        above, below = (
            graph.node(op, [column, graph.constant(limit)]) for op, limit in (("Greater", -1.0), ("Less", float(count)))
        )
        known = graph.node("And", [above, below])
        graph.refuse_unless(graph.cast(known, DOUBLE))
        # A number is rounded towards 0, as numpy's integers are.
        place = graph.node("Where", [known, column, graph.constant(0.0)])
        place = graph.node("Reshape", [graph.cast(place, INT64), graph.constant([-1], INT64)])
        terms.append(graph.node("Gather", [graph.constant(np.asarray(table, np.float64).T), place]))
    return graph.node("Softmax", [graph.node("Sum", terms)], axis=1)
