"""What holds for every test: an empty cache of exports, its own; exports that cost nothing; modules for child processes."""

from __future__ import annotations

import itertools
import os
import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest

from fo_onnx.engine import small_jobs
from fo_onnx.store import user_cache

FRAMEWORKS = frozenset({"torch", "keras", "tensorflow", "jax", "sklearn"})
_NUMBERS = itertools.count()


class WithoutFrameworks(MetaPathFinder):
    """Let the import of a framework fail as if it was not installed, in this process."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> None:
        if name in FRAMEWORKS:
            raise ModuleNotFoundError(f"No module named {name!r} (run with --without-frameworks)", name=name)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--without-frameworks", action="store_true", help="run as if no framework was installed")


def pytest_configure(config: pytest.Config) -> None:
    folders = [str(config.rootpath / "tests" / name) for name in ("support", "coverage")]
    os.environ["PYTHONPATH"] = os.pathsep.join([*folders, *filter(None, [os.environ.get("PYTHONPATH")])])
    if config.getoption("without_frameworks"):
        sys.meta_path.insert(0, WithoutFrameworks())


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def empty_cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's cache of exports, which is made when something is kept."""
    folder = caches / str(next(_NUMBERS))
    monkeypatch.setenv(user_cache.FOLDER_VARIABLE, str(folder))
    return folder


@pytest.fixture(autouse=True)
def exports_are_free(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """No job is small: models are exported as they are for long runs, however few rows a test has.

    Tests of small jobs take the mark ``exports_cost_time``. Child processes say ``runner="onnx"`` where it matters.
    """
    if request.node.get_closest_marker("exports_cost_time") is None:
        monkeypatch.setattr(small_jobs, "expected_export_s", lambda framework: 0.0)
