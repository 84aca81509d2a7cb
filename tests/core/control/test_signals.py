"""Signals that come while rows are being kept: none is lost, none cuts it short, and a hanging disk can be left."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from fo_onnx.control import signals
from fo_onnx.control.signals import SIGNALS, one_interrupt, signals_deferred, wait_until


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Start from Python's own handlers, whatever the tests' shell ignores, and check that every one is put back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    for number in SIGNALS:
        signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
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
    with one_interrupt(like_ctrl_c=True), signals_deferred(KeyboardInterrupt()):
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
        with one_interrupt(like_ctrl_c=True), signals_deferred():
            signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)


def test_in_another_thread_nothing_is_touched() -> None:
    ran: list[bool] = []

    def work() -> None:
        with one_interrupt(like_ctrl_c=True), signals_deferred():
            ran.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join(10)
    assert ran == [True]


def test_after_the_first_interrupt_others_wait_until_its_end() -> None:
    cleared = []
    with pytest.raises(KeyboardInterrupt), one_interrupt():
        try:
            signal.raise_signal(signal.SIGINT)
            pytest.fail("went on")
        finally:
            for _ in range(5):
                signal.raise_signal(signal.SIGINT)
            with signals_deferred():
                signal.raise_signal(signal.SIGINT)
            cleared.append(wait_until(lambda seconds: True))
    assert cleared == [True]


def test_one_that_waited_does_not_take_the_place_of_what_the_first_one_became() -> None:
    with pytest.raises(LookupError), one_interrupt():
        try:
            signal.raise_signal(signal.SIGINT)
        except KeyboardInterrupt:
            signal.raise_signal(signal.SIGINT)
            raise LookupError from None


def in_a_section() -> None:
    with signals_deferred():
        signal.raise_signal(signal.SIGINT)
    pytest.fail("went on")


def in_a_wait() -> None:
    wait_until(lambda seconds: bool(signal.raise_signal(signal.SIGINT)))
    pytest.fail("went on")


@pytest.mark.parametrize("interrupted", [in_a_section, in_a_wait])
def test_an_interrupt_that_was_put_off_is_the_one_that_counts(interrupted: Callable[[], None]) -> None:
    cleared = []
    with pytest.raises(KeyboardInterrupt), one_interrupt():
        try:
            interrupted()
        finally:
            for _ in range(3):
                signal.raise_signal(signal.SIGINT)
                with signals_deferred():
                    signal.raise_signal(signal.SIGINT)
                cleared.append(wait_until(lambda seconds: True))
    assert cleared == [True] * 3


def test_a_handler_of_the_user_that_does_not_raise_hears_every_signal() -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        with one_interrupt(like_ctrl_c=True):
            for count in (1, 2, 3):
                signal.raise_signal(signal.SIGTERM)
                assert len(heard) == count
    finally:
        signal.signal(signal.SIGTERM, before)


def test_a_handler_that_is_set_meanwhile_stays() -> None:
    before = signal.getsignal(signal.SIGTERM)
    mine = lambda number, frame: None  # noqa: E731
    with one_interrupt():
        signal.signal(signal.SIGTERM, mine)
    assert signal.getsignal(signal.SIGTERM) is mine
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize("number", [n for n in SIGNALS if n != signal.SIGINT])
def test_what_would_just_end_the_process_is_like_ctrl_c(number: int) -> None:
    with pytest.raises(KeyboardInterrupt), one_interrupt(like_ctrl_c=True):
        signal.raise_signal(number)


def test_an_interrupt_comes_between_two_steps_of_a_wait() -> None:
    steps: list[float | None] = []

    def step(seconds: float | None) -> bool:
        steps.append(seconds)
        signal.raise_signal(signal.SIGINT)
        steps.append(seconds)
        return False

    with pytest.raises(KeyboardInterrupt):
        wait_until(step, 60)
    assert len(steps) == 2


def test_a_wait_ends_in_time_and_with_what_it_waited_for() -> None:
    event, begun = threading.Event(), time.monotonic()
    assert not wait_until(event.wait, 0.12)
    assert 0.1 < time.monotonic() - begun < 5
    threading.Timer(0.1, event.set).start()
    assert wait_until(event.wait)
    assert wait_until(event.wait, 0)


def test_sigterm_that_nobody_answers_ends_the_process_after_the_block() -> None:
    code = (
        "import signal\nfrom fo_onnx.control.signals import signals_deferred\n"
        "with signals_deferred(KeyboardInterrupt()):\n"
        "    signal.raise_signal(signal.SIGTERM)\n    print('written', flush=True)\nprint('went on', flush=True)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (-signal.SIGTERM, "written\n")
