"""Layer normalisation as one node: Keras and JAX write it as thirteen passes over the activations, of which ONNX Runtime fuses none."""

from __future__ import annotations

from .graph_view import GraphView
from .reductions import before_broadcast, is_one_per_row, mean_of


def fuse_layer_norm(view: GraphView) -> int:
    """Replace each layer normalisation over the last axis by one node, and return how many there were.

    Before: with r = 1 / √(variance + ε) · scale, either x · r + (shift - mean · r), as Keras has it, or (x - mean) · r + shift; the
    variance is the mean of (x - mean)², or that of x² less mean², and not below 0. Scale and shift are weights along the last axis.
    After: ``LayerNormalization``.
    """
    import onnx

    for inverse in view.nodes_of("Reciprocal"):
        if (root := view.producer(inverse.input[0], "Sqrt")) is None:
            continue
        variance = view.split_number(view.producer(root.input[0], "Add"))
        x = None if variance is None else _argument_of_variance(view, variance[1])
        scaled = view.only_reader(inverse.output[0], "Mul")
        if variance is None or x is None or scaled is None:
            continue
        scale = scaled.input[1 if scaled.input[0] == inverse.output[0] else 0]
        last = _shifted(view, x, scaled.output[0])
        if last is None or not (_is_along_last(view, scale, x) and _is_along_last(view, last[1], x)):
            continue
        output, shift = last
        weights = [view.new_name("fo_onnx_scale"), view.new_name("fo_onnx_shift")]
        nodes = [
            onnx.helper.make_node("Squeeze", [before], [after])
            for before, after in zip((scale, shift), weights, strict=True)
        ]
        nodes.append(onnx.helper.make_node("LayerNormalization", [x, *weights], [output], axis=-1, epsilon=variance[0]))
        view.replace(output, nodes)
    return view.finish()


def _argument_of_variance(view: GraphView, name: str) -> str | None:
    """Return what a value is the variance of along the last axis; ``None`` if it is none."""
    variance = before_broadcast(view, name)
    if (squares := mean_of(view, variance)) is not None:
        x = _less_mean(view, _square_root(view, squares))
    else:
        bounded = view.split_number(view.producer(variance, "Max"))
        difference = view.producer(bounded[1] if bounded is not None and bounded[0] == 0 else variance, "Sub")
        if difference is None or (squares := mean_of(view, difference.input[0])) is None:
            return None
        x = _square_root(view, squares)
        if mean_of(view, _square_root(view, difference.input[1])) != x:
            return None
    return x if x and is_one_per_row(view, name, x) else None


def _square_root(view: GraphView, name: str) -> str:
    """Return what a value is the square of; ``""`` if it is no square."""
    product = view.producer(name, "Mul")
    return product.input[0] if product is not None and product.input[0] == product.input[1] else ""


def _less_mean(view: GraphView, name: str) -> str:
    """Return x if a value is x less its mean; ``""`` if it is not."""
    difference = view.producer(name, "Sub")
    return (
        difference.input[0]
        if difference is not None and _is_mean(view, difference.input[1], difference.input[0])
        else ""
    )


def _is_mean(view: GraphView, name: str, x: str) -> bool:
    return is_one_per_row(view, name, x) and mean_of(view, before_broadcast(view, name)) == x


def _shifted(view: GraphView, x: str, factor: str) -> tuple[str, str] | None:
    """Return the normalised value that x · factor leads to, and what it is shifted by; ``None`` if it leads to none."""
    products = view.readers(factor, "Mul")
    others = [(p.output[0], p.input[1 if p.input[0] == factor else 0]) for p in products]
    if len(others) == 1 and _less_mean(view, others[0][1]) == x:
        return _sum_of(view, others[0][0])
    for (scaled, plain), (shift, negated) in (others, others[::-1]) if len(others) == 2 else ():
        mean = view.producer(negated, "Neg")
        if plain == x and mean is not None and _is_mean(view, mean.input[0], x):
            shifted, last = _sum_of(view, shift), view.only_reader(scaled, "Add")
            if shifted is not None and last is not None and shifted[0] in last.input:
                return last.output[0], shifted[1]
    return None


def _sum_of(view: GraphView, name: str) -> tuple[str, str] | None:
    """Return the sum that a value alone goes into, and the other operand."""
    total = view.only_reader(name, "Add")
    return None if total is None else (total.output[0], total.input[1 if total.input[0] == name else 0])


def _is_along_last(view: GraphView, name: str, x: str) -> bool:
    """Return whether a value is weights, one for each entry of the last axis of x."""
    shape, shape_of_x = view.shape(name), view.shape(x)
    if not shape or not shape_of_x or not view.is_constant(name):
        return False
    return shape[-1] == shape_of_x[-1] != 1 and set(shape[:-1]) <= {1}
