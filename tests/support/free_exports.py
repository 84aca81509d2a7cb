"""Imported by programs of tests: no job is small, as in the tests' own process (`exports_are_free` of tests/conftest.py)."""

from __future__ import annotations

from fo_onnx.engine import small_jobs

small_jobs.expected_export_s = lambda framework: 0.0
