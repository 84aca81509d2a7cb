"""Signals that come while rows are being kept: none is lost, none cuts it short, and a hanging disk can be left."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import pytest

from fo_onnx import signals
from fo_onnx.signals import SIGNALS, ended_like_ctrl_c, signals_deferred


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, and afterwards every handler is what it was."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    inside = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    after = {number: signal.getsignal(number) for number in SIGNALS}
    for number, handler in before.items():
        signal.signal(number, handler)
    assert after == inside


def test_an_interrupt_waits_for_the_end_of_the_block() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), signals_deferred():
        signal.raise_signal(signal.SIGINT)
        done.append("written")
    assert done


def test_presses_in_quick_succession_are_one() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), signals_deferred():
        for _ in range(20):
            signal.raise_signal(signal.SIGINT)
        done.append("written")
    assert done


def test_another_interrupt_while_one_is_answered_asks_for_nothing_new() -> None:
    with signals_deferred(KeyboardInterrupt()):
        signal.raise_signal(signal.SIGINT)
    with ended_like_ctrl_c(), signals_deferred(KeyboardInterrupt()):
        signal.raise_signal(signal.SIGTERM)


def test_an_interrupt_while_an_error_is_answered_is_delivered_after_it() -> None:
    with pytest.raises(KeyboardInterrupt), signals_deferred(ValueError("bad row")):
        signal.raise_signal(signal.SIGINT)


def test_a_handler_of_the_user_hears_its_signal_afterwards() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with signals_deferred(KeyboardInterrupt()):
            signal.raise_signal(signal.SIGTERM)
            assert heard == []
        assert heard == [signal.SIGTERM]
    finally:
        signal.signal(signal.SIGTERM, before)


def test_within_another_block_the_outer_one_decides() -> None:
    done = []
    with pytest.raises(KeyboardInterrupt), signals_deferred():
        with signals_deferred():
            signal.raise_signal(signal.SIGINT)
        done.append("the outer one ended")
    assert done


def test_a_disk_that_hangs_is_left_by_the_second_signal_after_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "IMPATIENT_S", 0.05)
    begun = time.monotonic()
    with pytest.raises(KeyboardInterrupt), signals_deferred(KeyboardInterrupt()):
        signal.raise_signal(signal.SIGINT)
        main = threading.main_thread().ident
        assert main is not None
        threading.Timer(0.2, signal.pthread_kill, [main, signal.SIGINT]).start()
        time.sleep(30)
    assert time.monotonic() - begun < 20


def test_a_disk_that_hangs_for_long_is_left_by_one_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(signals, "PATIENCE_S", 0.05)
    with pytest.raises(KeyboardInterrupt), signals_deferred(KeyboardInterrupt()):
        time.sleep(0.1)
        signal.raise_signal(signal.SIGINT)
        pytest.fail("went on")


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    try:
        with ended_like_ctrl_c(), signals_deferred():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_is_touched() -> None:
    ran: list[bool] = []

    def work() -> None:
        with ended_like_ctrl_c(), signals_deferred():
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert ran == [True]


def test_sigterm_that_nobody_answers_ends_the_process_after_the_block() -> None:
    code = (
        "import signal\nfrom fo_onnx.signals import signals_deferred\n"
        "with signals_deferred(KeyboardInterrupt()):\n"
        "    signal.raise_signal(signal.SIGTERM)\n    print('written', flush=True)\nprint('went on', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "written\n")
