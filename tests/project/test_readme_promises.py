"""The table of promises in the README: every line names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def promises() -> list[tuple[str, list[tuple[str, str]]]]:
    """The faults of the table, each with the files and functions of its tests."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    table = text[text.index("| fault | what happens |") :].split("\n\n")[0].splitlines()[2:]
    return [(row.split("|")[1].strip(), re.findall(r"`(tests/[\w/]+\.py)::(test_\w+)`", row)) for row in table]


def test_every_promise_has_its_test():
    lines = promises()
    assert len(lines) >= 15
    for fault, tests in lines:
        assert tests, f"no test for {fault!r}"
        for file, function in tests:
            tree = ast.parse((ROOT / file).read_text(encoding="utf-8"))
            assert function in {n.name for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)}, f"{file}::{function}"
