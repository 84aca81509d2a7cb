"""What holds for every test: an empty cache of exports, its own."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from fo_onnx.conversion import cache

_NUMBERS = itertools.count()


@pytest.fixture(scope="session")
def caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def empty_cache(caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of this test's cache of exports, which is made when something is kept."""
    folder = caches / str(next(_NUMBERS))
    monkeypatch.setenv(cache.FOLDER_VARIABLE, str(folder))
    return folder
