"""Every example in a docstring runs."""

from __future__ import annotations

import doctest
import importlib
import pkgutil

import pytest

import fo_onnx

MODULES = sorted(
    m.name
    for m in pkgutil.walk_packages(fo_onnx.__path__, "fo_onnx.")
    if "data_generator" not in m.name and not m.name.endswith("__main__")  # which runs the command when it is imported
)


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings(name: str) -> None:
    module = importlib.import_module(name)
    assert doctest.testmod(module, optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE).failed == 0


def test_there_are_examples() -> None:
    finder = doctest.DocTestFinder(exclude_empty=True)
    modules = [importlib.import_module(name) for name in MODULES]
    assert sum(bool(t.examples) for m in modules for t in finder.find(m)) >= 10
