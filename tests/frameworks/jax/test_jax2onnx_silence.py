"""Messages of jax2onnx do not reach the terminal; those of others do."""

from __future__ import annotations

import logging

import pytest
from fo_onnx_jax.jax2onnx.converter import silence_jax2onnx


def record(file: str) -> logging.LogRecord:
    return logging.LogRecord("root", logging.WARNING, f"/site-packages/{file}", 1, "said by %s", (file,), None)


def test_only_what_jax2onnx_logs_to_the_root_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    with silence_jax2onnx():
        logging.root.handle(record("jax2onnx/plugins.py"))
        logging.root.handle(record("users/model.py"))
        for name in ("jax2onnx.converter", "onnx_ir"):
            logging.getLogger(name).error("an error that is tried another way")
        logging.getLogger("jax").warning("of jax")
    assert caplog.messages == ["said by users/model.py", "of jax"]


def test_the_root_is_as_it_was_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    before = list(logging.root.handlers)
    with pytest.raises(ValueError, match="in the conversion"), silence_jax2onnx():
        logging.root.addHandler(logging.NullHandler())
        raise ValueError("in the conversion")
    assert logging.root.handlers == before
    logging.root.handle(record("jax2onnx/plugins.py"))
    assert caplog.messages == ["said by jax2onnx/plugins.py"]
