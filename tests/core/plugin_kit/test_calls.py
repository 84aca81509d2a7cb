"""How models are called with named arrays, and which output is meant."""

from __future__ import annotations

import dataclasses
import functools
from collections import namedtuple

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fo_onnx.contracts.spec import InputSignature
from fo_onnx.errors import OutputError
from fo_onnx.plugin_kit.calling import nest, pick_output, plan_call
from fo_onnx.plugin_kit.captured import captured_values, signature_of, takes_keywords

TWO = InputSignature(("image", "mask"), ("scale",))
SCORES, OTHER = np.zeros((4, 3)), np.zeros((4, 7))


def is_array(value: object) -> bool:
    return isinstance(value, np.ndarray)


@pytest.mark.parametrize(
    ("keys", "form", "names", "arguments"),
    [
        (("0", "1"), "positional", ("image", "mask"), ((1, 2), {})),
        (("0.0", "0.1", "1"), "positional", ("image.0", "image.1", "mask"), (((1, 2), 3), {})),
        (("0", "1", "2", "3"), "positional", ("image", "mask", "scale", "input_3"), ((1, 2, 3, 4), {})),
        (("mask", "image"), "keywords", ("mask", "image"), ((), {"mask": 1, "image": 2})),
        (("image.left", "image.right"), "keywords", ("image.left", "image.right"), ((), {"image": {"left": 1, "right": 2}})),
        (("a", "b"), "dict", ("a", "b"), (({"a": 1, "b": 2},), {})),
    ],
)  # fmt: skip
def test_the_form_of_a_call(keys, form, names, arguments):
    call = plan_call(TWO, keys)
    assert (call.form, call.names) == (form, names)
    assert call.arguments(range(1, len(keys) + 1)) == arguments


def test_a_model_that_takes_any_keywords():
    assert plan_call(None, ("a", "b"), takes_keywords=True).form == "keywords"
    assert plan_call(None, ("a", "b")).form == "dict"


@pytest.mark.parametrize(
    ("signature", "name"),
    [
        (InputSignature(("x",)), "x"),
        (InputSignature(("x",), ("mask", "scale")), "x"),
        (InputSignature((), ("x",)), "x"),
        (None, "image"),
    ],
)
@pytest.mark.parametrize("takes_keywords", [False, True])
def test_a_lone_column_of_another_name_is_the_one_input(signature, name, takes_keywords):
    asked = []

    def refuses(call):
        asked.append(call.form)
        return False

    call = plan_call(signature, ("image",), takes_keywords=takes_keywords, runs=refuses)

    assert (call.form, call.names, call.arguments([1])) == ("positional", (name,), ((1,), {}))
    assert call.arrays({"image": 1}) == [1]
    assert asked == ["keywords" if signature is None and takes_keywords else "dict"]
    # A model may take a dict with one entry.
    assert plan_call(signature, ("image",), runs=lambda call: True).arguments([1]) == (({"image": 1},), {})


@pytest.mark.parametrize(
    ("signature", "keys"),
    [(TWO, ("photo",)), (InputSignature((), ("x", "y")), ("photo",)), (InputSignature(("x",)), ("photo", "other"))],
)
def test_of_several_inputs_or_columns_none_is_meant(signature, keys):
    assert plan_call(signature, keys, runs=lambda call: pytest.fail("not asked")).form == "dict"


def test_arrays_by_either_name():
    call = plan_call(TWO, ("0", "1"))
    assert call.arrays({"0": 1, "1": 2}) == call.arrays({"mask": 2, "image": 1}) == [1, 2]


@given(st.permutations([str(i) for i in range(12)]))
def test_positions_are_numbers_and_not_text(keys):
    """The tenth comes after the second."""
    args, _ = plan_call(None, keys).arguments([int(k) for k in keys])
    assert args == tuple(range(12))
    assert nest({f"x.{k}": int(k) for k in keys}) == {"x": tuple(range(12))}


Pair = namedtuple("Pair", ["logits", "hidden"])


@dataclasses.dataclass
class Record:
    hidden: np.ndarray
    logits: np.ndarray


@pytest.mark.parametrize(
    "found",
    [SCORES, (SCORES,), [SCORES], {"scores": SCORES}, {"a": None, "logits": SCORES, "b": OTHER}, Pair(SCORES, OTHER),
     Record(OTHER, SCORES)],
)  # fmt: skip
def test_the_one_output_that_can_be_meant(found):
    assert pick_output(found, None, "net", is_array) is SCORES


@pytest.mark.parametrize(
    ("found", "name"),
    [((OTHER, SCORES), "1"), ({"a": OTHER, "b": {"c": SCORES}}, "b.c"), (Pair(OTHER, SCORES), "hidden")],
)
def test_an_output_by_name(found, name):
    assert pick_output(found, name, "net", is_array) is SCORES


@pytest.mark.parametrize(
    ("found", "name", "text"),
    [
        ({"a": SCORES, "b": OTHER}, None, "called 'logits'; say which one with output_name=. Its outputs are a (4, 3), b (4, 7)."),
        ((SCORES, OTHER), None, "Its outputs are 0 (4, 3), 1 (4, 7)."),
        ({"a": SCORES}, "b", "net has no output 'b'; its outputs are a (4, 3)."),
        (SCORES, "b", "net has no output 'b'; its outputs are output (4, 3)."),
        (["text"], None, "a list of str, which holds no tensor; class scores (n, classes) were expected."),
        (3, None, "net returns an int, which holds no tensor"),
    ],
)  # fmt: skip
def test_outputs_that_are_ambiguous(found, name, text):
    with pytest.raises(OutputError) as caught:
        pick_output(found, name, "net", is_array)
    assert text in str(caught.value)


def test_signatures():
    assert signature_of(lambda x, y, *, z=1: x) == InputSignature(("x", "y"), ("z",))
    assert signature_of(functools.partial(lambda w, x: x, 3)) == InputSignature(("x",))
    assert signature_of(lambda *xs: xs) is None
    assert signature_of(lambda x, **kw: x) is None
    assert signature_of(lambda x, **kw: x, ignore_keywords=True) == InputSignature(("x",))
    assert signature_of(lambda **kw: kw, ignore_keywords=True) is None
    assert signature_of(3) is None
    assert takes_keywords(lambda **kw: kw)
    assert not takes_keywords(lambda x: x)
    assert not takes_keywords(3)


def test_what_a_function_holds():
    inside, bound = object(), object()

    class Owner:
        def __init__(self) -> None:
            self.kept = inside

        def __call__(self, x: object) -> object:
            return np.tanh

        def method(self, x: object) -> object:
            return x

    def closing(x: object) -> object:
        return inside, np

    owner = Owner()
    assert inside in list(captured_values(closing))
    assert np in list(captured_values(closing))
    assert owner in list(captured_values(owner.method))
    assert {inside, np} <= set(captured_values(owner))
    assert {inside, bound} <= set(captured_values(functools.partial(closing, bound)))


def test_a_name_that_is_not_bound_yet():
    def maker():
        def early(x: object) -> object:
            return late

        found = list(captured_values(early))
        late = 3
        return found, late

    assert maker()[0] == []
