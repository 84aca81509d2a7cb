"""What jax2onnx says is kept off the terminal; what others say is not."""

from __future__ import annotations

import logging

import pytest
from fo_onnx_jax.restoring import jax2onnx_quiet


def record(file: str) -> logging.LogRecord:
    return logging.LogRecord("root", logging.WARNING, f"/site-packages/{file}", 1, "said by %s", (file,), None)


def test_only_what_jax2onnx_logs_to_the_root_is_dropped(caplog: pytest.LogCaptureFixture) -> None:
    with jax2onnx_quiet():
        logging.root.handle(record("jax2onnx/plugins.py"))
        logging.root.handle(record("users/model.py"))
        for name in ("jax2onnx.converter", "onnx_ir"):
            logging.getLogger(name).error("an error that is tried another way")
        logging.getLogger("jax").warning("of jax")
    assert caplog.messages == ["said by users/model.py", "of jax"]


def test_the_root_is_as_it_was_after_an_error(caplog: pytest.LogCaptureFixture) -> None:
    before = list(logging.root.handlers)
    with pytest.raises(ValueError, match="in the conversion"), jax2onnx_quiet():
        logging.root.addHandler(logging.NullHandler())
        raise ValueError("in the conversion")
    assert logging.root.handlers == before
    logging.root.handle(record("jax2onnx/plugins.py"))
    assert caplog.messages == ["said by jax2onnx/plugins.py"]
