"""What may be printed of names that somebody else chose."""

from __future__ import annotations

import json
import pickle
import sys
import unicodedata
import warnings

import numpy as np
import pytest

import fo_onnx
from fo_onnx import errors
from fo_onnx.guards.printable import escaped, escaped_json

ALL = [chr(code) for code in range(sys.maxunicode + 1)]
UNSAFE = {"Cc", "Cf", "Co", "Cs", "Cn", "Zl", "Zp"}


def test_every_character_that_a_terminal_may_obey_is_escaped_and_no_other() -> None:
    for character in ALL:
        unsafe = unicodedata.category(character) in UNSAFE
        assert (escaped(character) != character) == unsafe, hex(ord(character))
        assert escaped(character).isprintable() or not unsafe


def test_escaped_as_repr_does() -> None:
    for character in [
        "\x00",
        "\x1b",
        "\x7f",
        "\x9b",
        "\n",
        "\r",
        "\t",
        "\u202e",
        "\u2028",
        "\ue000",
        "\udcff",
        "\U000e0001",
    ]:
        assert escaped(f"a{character}b") == f"a{character!r}b".replace("'", "")


def test_no_bracket_of_a_sequence_is_left() -> None:
    assert escaped("\x1b[31mred\x1b]0;title\x07 [2J ]") == "\\x1b\\x5b31mred\\x1b\\x5d0;title\\x07 [2J ]"


def test_plain_text_and_what_was_escaped_stay() -> None:
    for text in ["", "ein Kätzchen", "猫 と 犬", "C:\\temp\\new", "a\u00a0b\u3000c", escaped("\x1b[2J\n")]:
        assert escaped(text) == text


def test_newlines_of_a_layout_stay() -> None:
    assert escaped("a\nb\r\x1b\n", keep_newlines=True) == "a\nb\\r\\x1b\n"


def test_a_json_document_keeps_its_values() -> None:
    values = {"".join(ALL[start : start + 4096]): start for start in range(0, len(ALL), 4096)}
    document = escaped_json(json.dumps(values, ensure_ascii=False, indent=2))
    assert all(escaped(line) == line for line in document.split("\n"))
    assert {k.encode("utf-16", "surrogatepass"): v for k, v in json.loads(document).items()} == {
        k.encode("utf-16", "surrogatepass"): v for k, v in values.items()
    }
    assert "ß" in document


def all_errors(kind: type[BaseException] = errors.FoOnnxError) -> list[type[BaseException]]:
    return [kind, *(e for sub in kind.__subclasses__() for e in all_errors(sub))]


@pytest.mark.parametrize("kind", all_errors())
def test_no_error_carries_an_escape_sequence(kind: type[BaseException]) -> None:
    err = kind("reading \x1b[2J\u202e: no\nfo-onnx: all is well")
    assert str(err) == "reading \\x1b\\x5b2J\\u202e: no\\nfo-onnx: all is well"
    assert str(pickle.loads(pickle.dumps(err))) == str(err)


def test_no_warning_and_no_repr_carries_an_escape_sequence(tmp_path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        errors.warn_at_caller("the model \x1b[2J\nfo-onnx: fine")
    assert str(caught[0].message) == "the model \\x1b\\x5b2J\\nfo-onnx: fine"
    path = fo_onnx.save(fo_onnx.Distributions(np.eye(2)), tmp_path / "a\x1b[2J\u202e\n.npz")
    assert escaped(repr(fo_onnx.load(path))) == repr(fo_onnx.load(path))
