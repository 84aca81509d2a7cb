"""What a benchmark says: its file, its table, its sentence, its page, and two of them compared."""

from __future__ import annotations

import json
import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import pytest

from fo_onnx.bench import report
from fo_onnx.bench.page import write_page
from fo_onnx.bench.result import BenchError, BenchResult, PathResult, read_result
from fo_onnx.bench.turns import Ratio

ENVIRONMENT = {
    "processor": "A", "cores": 2, "device": "cpu", "precision": "float32", "model": "Net", "versions": {"torch": "2.13"},
    "commit": "abc", "row": {"0": "float32 [4]"},
}  # fmt: skip
EAGER = PathResult("torch eager", True, (2.0, 2.2, 2.1), 32, {"8": 400.0, "32": 500.0}, 0.1, 0.001, 1e-7, 50 << 20)
COMPILED = PathResult("torch.compile", True, error="InductorError: no compiler")
OWN = PathResult("fo-onnx", False, (1.0, 1.1, 1.0), None, {}, 0.02, 0.002, 2e-7, 30 << 20)
RESULT = BenchResult(
    rows=1000, paths=(EAGER, COMPILED, OWN), null=Ratio(1.0, 0.96, 1.04), export_s=5.0, flops_per_row=1e6, bytes_per_row=1e3,
    limit_rows_per_s=2000.0, environment=ENVIRONMENT,
)  # fmt: skip


def test_a_file_of_results_reads_back(tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(RESULT.to_json())
    assert read_result(path) == RESULT
    assert json.loads(path.read_text())["schema"] == 1


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"schema": 2}', '{"schema": 1}', '{"schema": 1, "rows": "x"}'])
def test_what_is_no_file_of_results(content: str, tmp_path: Path) -> None:
    path = tmp_path / "r.json"
    path.write_text(content)
    with pytest.raises(BenchError, match=r"r\.json"):
        read_result(path)
    with pytest.raises(BenchError, match=r"none\.json: there is no such file"):
        read_result(tmp_path / "none.json")


def test_a_table_has_a_line_for_each_path_and_each_error() -> None:
    table = report.write_table(RESULT)
    assert "| torch eager | 476 | 0.50 (0.48 to 0.50) | 32 | 1.00 | 0.10 | 50 | 24 % | 1.0e-07 |" in table
    assert "| fo-onnx | 1,000 | 1 |" in table
    assert "torch.compile was not timed: InductorError: no compiler" in table
    assert "1.00 (0.96 to 1.04)" in table


def test_the_sentence_says_which_by_how_much_and_from_when_on() -> None:
    assert report.advise(RESULT) == (
        "fo-onnx is the quickest way to run this model here, 2.00 times as fast as torch eager; its export of 5.0 s has paid for "
        "itself from 4,500 rows on. Not timed: torch.compile."
    )
    # Within the spread of the null nothing is said to be faster.
    close = replace(EAGER, seconds=(1.02, 1.08, 1.03))
    assert report.advise(replace(RESULT, paths=(close, OWN))).startswith("fo-onnx and torch eager are the quickest way")
    assert report.advise(replace(RESULT, paths=(COMPILED,), null=None)) == "No path ran; the errors above say why."


def test_the_export_pays_only_if_it_is_quicker() -> None:
    # What is opened before the first row counts on both sides.
    assert RESULT.rows_until_paid() == pytest.approx((5.0 + 0.02 - 0.1) / ((2.1 - 1.0) / 1000))
    slower = replace(OWN, seconds=(3.0, 3.0, 3.0))
    assert replace(RESULT, paths=(EAGER, slower)).rows_until_paid() is None
    assert replace(RESULT, export_s=None).rows_until_paid() is None


def test_two_results_are_compared_path_by_path() -> None:
    quicker = replace(OWN, seconds=(0.5, 0.52, 0.51))
    other = replace(
        RESULT, paths=(EAGER, quicker), environment={**ENVIRONMENT, "versions": {"torch": "2.14"}, "commit": "def"}
    )
    text = report.compare(RESULT, other)
    assert "| torch eager | 1.00 (0.91 to 1.10) | the same |" in text
    assert "| fo-onnx | 1.96" in text
    assert "| faster |" in text
    assert "torch: 2.13 → 2.14" in text


def test_turns_of_other_lengths_are_compared_by_their_rates() -> None:
    longer = [replace(p, seconds=tuple(2 * s for s in p.seconds)) for p in RESULT.paths]
    text = report.compare(RESULT, replace(RESULT, rows=2 * RESULT.rows, paths=tuple(longer)))
    assert text.count("| the same |") == 2
    assert "| fo-onnx | 1.00 " in text


@pytest.mark.parametrize("key", ["processor", "cores", "precision", "model", "row"])
def test_unlike_results_are_not_compared(key: str) -> None:
    other = replace(RESULT, environment={**ENVIRONMENT, key: "another"})
    with pytest.raises(BenchError, match=rf"cannot be compared: they differ in {key} \(.*'another'\)"):
        report.compare(RESULT, other)


def test_a_page_is_well_formed_and_needs_no_network() -> None:
    odd = replace(EAGER, name="torch <eager> & co")
    page = write_page(replace(RESULT, paths=(odd, OWN)), "a <title>")
    assert not re.findall(r"src=|href=|url\(|@import|<script", page)
    assert "&lt;eager&gt; &amp; co" in page
    assert page.count("<svg") == page.count("</svg>") == 4
    for part in page.split("<svg")[1:]:
        ElementTree.fromstring("<svg" + part.split("</svg>")[0] + "</svg>")  # raises if it is not well formed
