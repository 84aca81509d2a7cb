"""GELU as one node: of five or eight passes over the activations one is left.

ONNX Runtime finds x · ½ · (1 + erf(x/√2)) in the order of TensorFlow; torch's exporter writes x · (½ · (1 + erf(x/√2))), jax2tf
½ · x · erfc(-x/√2) as 1 - erf. The approximation by tanh is found in the order of torch and JAX alike.
"""

from __future__ import annotations

import math

from .graph_view import CONTRIB_DOMAIN, GraphView


def fuse_gelu(view: GraphView) -> int:
    """Replace each GELU by one node, and return how many there were.

    Before: float32, x · ½ · (1 + erf(x / √2)), or x · ½ · (1 + tanh(√(2/π) · (x + 0.044715 · x³))), the factors in any order.
    After: ``com.microsoft.Gelu`` or ``FastGelu`` of x.
    """
    import onnx

    for node in view.nodes_of("Erf", "Tanh"):
        if node.op_type == "Erf":
            operator, x = "Gelu", _argument_of_erf(view, node.input[0])
        else:
            operator, x = "FastGelu", _argument_of_tanh(view, node.input[0])
        if x is None:
            continue
        sign, value = x
        output = _half_of_product(view, node.output[0], value, sign)
        if output is not None:
            view.replace(output, [onnx.helper.make_node(operator, [value], [output], domain=CONTRIB_DOMAIN)])
    return view.finish()


def _argument_of_erf(view: GraphView, name: str) -> tuple[int, str] | None:
    """Return x and its sign if a value is ±x / √2."""
    sign = 1
    if (negated := view.producer(name, "Neg")) is not None:
        sign, name = -1, negated.input[0]
    divided = view.producer(name, "Div")
    if divided is not None and (number := view.number(divided.input[1])) is not None:
        factor, x = 1 / number if number else 0.0, divided.input[0]
    elif (product := view.split_number(view.producer(name, "Mul"))) is not None:
        factor, x = product
    else:
        return None
    if factor < 0:
        sign, factor = -sign, -factor
    if (negated := view.producer(x, "Neg")) is not None:
        sign, x = -sign, negated.input[0]
    return (sign, x) if view.is_value(factor, 1 / math.sqrt(2)) else None


def _argument_of_tanh(view: GraphView, name: str) -> tuple[int, str] | None:
    """Return x, with the sign 1, if a value is √(2/π) · (x + 0.044715 · x³)."""
    outer = view.split_number(view.producer(name, "Mul"))
    if outer is None or not view.is_value(outer[0], math.sqrt(2 / math.pi)):
        return None
    total = view.producer(outer[1], "Add")
    if total is None:
        return None
    for x, cubic in (total.input, reversed(total.input)):
        monomial = _read_monomial(view, cubic, x)
        if monomial is not None and monomial[1] == 3 and view.is_value(monomial[0], 0.044715):
            return 1, x
    return None


def _read_monomial(view: GraphView, name: str, x: str) -> tuple[float, float] | None:
    """Return c and n if a value is c · xⁿ; ``None`` if it is not, or has more factors than a cubic term."""
    monomial, factors = (1.0, 0.0), [name]
    for _ in range(7):
        if not factors:
            return monomial
        factor = factors.pop()
        if factor == x:
            monomial = monomial[0], monomial[1] + 1
        elif (number := view.number(factor)) is not None:
            monomial = monomial[0] * number, monomial[1]
        elif (product := view.producer(factor, "Mul")) is not None:
            factors.extend(product.input)
        elif (power := view.producer(factor, "Pow")) is not None and power.input[0] == x:
            exponent = view.constant(power.input[1])
            if exponent is None or exponent.size != 1:
                return None
            monomial = monomial[0], monomial[1] + float(exponent.reshape(-1)[0])
        else:
            return None
    return None if factors else monomial


def _half_of_product(view: GraphView, bell: str, x: str, sign: int) -> str | None:
    """Return the value ½ · x · (1 + bell), or ½ · x · (1 - bell) if `sign` is negative, that is made of `bell` alone.

    The value before each step is read by nothing else, so that nothing is computed twice.
    """
    total = view.only_reader(bell, "Add", "Sub")
    if total is None:
        return None
    is_sum = total.op_type == "Add"
    one = view.split_number(total) if is_sum else (view.number(total.input[0]), total.input[1])
    if one is None or one[0] != 1 or one[1] != bell or (sign > 0) is not is_sum:
        return None
    value: str = total.output[0]
    factors = {"half", "x"}
    while factors:
        product = view.only_reader(value, "Mul")
        if product is None:
            return None
        other = next((name for name in product.input if name != value), value)
        new = {"half"} if view.number(other) == 0.5 else {"x"} if other == x else _half_of(view, other, x)
        if not new or not new <= factors:
            return None
        factors, value = factors - new, product.output[0]
    return value


def _half_of(view: GraphView, name: str, x: str) -> set[str]:
    halved = view.split_number(view.producer(name, "Mul"))
    return {"half", "x"} if halved == (0.5, x) else set()
