"""Ends a run, at its deadline or when whoever waits for it stops it. Each call of the user has one `RunControl`.

Every thread that works for the call knows its control (`current`). Whatever takes long looks at it between rows, and
before and after calls of the model. A call that can be cut off, as ONNX Runtime's can, tells the control how. Two calls
share nothing of this, so that the end of one never touches another.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from ..contracts.options import check_timeout
from ..errors import RunError
from .signals import wait_until

T = TypeVar("T")
NAMED_S = 0.1
"""A call that ends later than this after the deadline is named in the error."""


class TimeUp(RunError):
    """The run took longer than ``timeout_s``."""


class RunEnded(BaseException):
    """A run is over; `begin`, where the run began, makes a `RunError` of it.

    Like KeyboardInterrupt it is no `Exception`: on its way up nobody may take it for a failure of the model, of a row
    or of an export, and go on with something else.

    Attributes:
        error: What the caller gets.
    """

    def __init__(self, error: RunError) -> None:
        super().__init__(str(error))
        self.error = error


class RunControl:
    """Ends one run: at its deadline by itself, or when `stop` is called. For any thread."""

    def __init__(self, timeout_s: float | None = None) -> None:
        """Begin to count.

        Args:
            timeout_s: Seconds from now until the deadline; ``None`` for none.
        """
        self.timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._state = threading.Condition()  # guards the calls in progress and `_stopped`
        self._cut_offs: dict[object, Callable[[], None] | None] = {}
        self._at_end: list[Callable[[], None]] = []
        self._stopped = False
        self._late_call = ""  # the call that was waited for past the deadline, for the message

    def left_s(self) -> float | None:
        """Return the seconds until the deadline, 0 after it; ``None`` if there is none."""
        if self._deadline is None:
            return None
        return min(max(self._deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)

    def check(self, doing: str = "") -> None:
        """Do nothing while the run may go on.

        Args:
            doing: What is being done, for the message: ``"while a row was being read"``.

        Raises:
            RunEnded: The deadline has passed, or the run was stopped.
        """
        if self._deadline is not None and time.monotonic() >= self._deadline:
            raise self.time_up(doing)
        if self._stopped:
            raise RunEnded(RunError("the run was ended."))

    def time_up(self, doing: str = "") -> RunEnded:
        """Return the end by the deadline; its message names `doing`, or the call that had to be waited for."""
        where = self._late_call or (f" {doing}" if doing else "")
        return RunEnded(TimeUp(f"the run reached its timeout_s={self.timeout_s:g} s{where}."))

    def stop(self) -> None:
        """Cut off the calls in progress, and let every later `check` end the run."""
        with self._state:
            self._stopped = True
            cut_offs = [cut_off for cut_off in self._cut_offs.values() if cut_off is not None]
        # Outside of the lock: the end of a call takes it.
        for cut_off in cut_offs:
            cut_off()

    def let_calls_end(self) -> None:
        """Wait until no call is in progress that cannot be cut off."""

        def have_ended(seconds: float | None) -> bool:
            with self._state:
                return self._state.wait_for(lambda: None not in self._cut_offs.values(), seconds)

        wait_until(have_ended)

    @contextmanager
    def calling(self, call: str, cut_off: Callable[[], None] | None = None) -> Iterator[None]:
        """Surround one long call that does not look at this control.

        What the call returns is used even if the deadline has passed meanwhile: the next `check` ends the run, and
        names the call if it held the run up.

        Args:
            call: The call as messages name it: ``"the export"``.
            cut_off: Cuts it off, from another thread; ``None`` if that is not possible, and the call is let end.

        Raises:
            RunEnded: The run was over before it; or the call failed, and the run was over by then.
        """
        self.check(f"before {call}")
        begun, key = time.monotonic(), object()
        with self._state:
            self._cut_offs[key] = cut_off
            stopped = self._stopped
        # `stop` may have come just before, and not have seen this call.
        if stopped and cut_off is not None:
            cut_off()
        try:
            yield
        except Exception as err:
            # A call that was cut off fails in its own way; the reason is the end of the run.
            self._note_end(call, begun)
            try:
                self.check(f"during {call}")
            except RunEnded as ended:
                raise ended from err
            raise
        finally:
            with self._state:
                self._note_end(call, begun)
                del self._cut_offs[key]
                self._state.notify_all()

    def _note_end(self, call: str, begun: float) -> None:
        now = time.monotonic()
        if self._deadline is not None and begun < self._deadline < now - NAMED_S:
            self._late_call = f"; it had to wait until {call} of {now - begun:.1f} s ended"

    @contextmanager
    def holding(self, lock: Any, doing: str) -> Iterator[None]:
        """Hold a lock within the block. Wait for it no longer than the run may last."""
        left_s = self.left_s()
        if not lock.acquire(timeout=-1 if left_s is None else left_s):
            raise self.time_up(doing)
        try:
            yield
        finally:
            lock.release()

    def bounded(self, read: Callable[[], T], doing: str) -> T:
        """Return what `read` returns; if the run has a deadline, call it in a thread that is not waited for longer.

        Reading cannot be cut off. A thread that is left behind ends with the row that it reads.

        Raises:
            RunEnded: The deadline passed.
        """
        if self._deadline is None:
            return read()
        self.check()
        call = ThreadCall(read, "fo-onnx-read")
        try:
            if not wait_until(call.ended.wait, self.left_s()):
                raise self.time_up(doing)
        except BaseException:
            self.stop()
            raise
        return call.result()

    def at_end(self, function: Callable[[], None]) -> None:
        """Have `function` called when the run is over, however it ends."""
        self._at_end.append(function)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Make this the control of the calling thread, and of the threads that `ThreadCall` starts from it."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)


_ENDLESS = RunControl()
_CURRENT: contextvars.ContextVar[RunControl] = contextvars.ContextVar("fo_onnx_run", default=_ENDLESS)


def current() -> RunControl:
    """Return the control of what the calling thread works for; outside of every run one that never ends."""
    return _CURRENT.get()


@contextmanager
def begin(timeout_s: float | None) -> Iterator[RunControl]:
    """Surround one call of the user, a run or a prediction. It ends at its deadline, or at an outer call's if earlier.

    Args:
        timeout_s: Seconds from now on; ``None`` for no deadline but the outer one.

    Raises:
        OptionError: `timeout_s` is no number above 0.
        TimeUp: The deadline has passed.
    """
    # Take the earlier of the two deadlines.
    check_timeout(timeout_s)
    control, outer = RunControl(timeout_s), current()
    if outer._deadline is not None and (control._deadline is None or outer._deadline < control._deadline):
        control.timeout_s, control._deadline, control._late_call = outer.timeout_s, outer._deadline, outer._late_call
    # What can be cut off is cut off at the deadline; all else looks at the control by itself.
    left_s = control.left_s()
    timer = None if left_s is None else threading.Timer(left_s, control.stop)
    try:
        if timer is not None:
            timer.daemon = True
            timer.start()
        with control.entered():
            yield control
    except RunEnded as ended:
        raise ended.error from ended.__cause__
    finally:
        if timer is not None:
            timer.cancel()
        control.stop()
        while control._at_end:
            control._at_end.pop()()


class ThreadCall(Generic[T]):
    """A call in a thread of its own, so that whoever waits for it can be interrupted by Ctrl-C and by a deadline.

    Attributes:
        ended: Set when it has ended.
    """

    def __init__(self, function: Callable[[], T], name: str) -> None:
        """Start the thread; `function` is called in the context of the caller."""
        self._function = function
        self._value: list[T] = []
        self._error: BaseException | None = None
        self.ended = threading.Event()
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._work,), name=name, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as err:  # it belongs to whoever waits
            self._error = err
        finally:
            self.ended.set()

    def join(self, timeout_s: float) -> None:
        """Wait until the thread is gone, but no longer than this."""
        # On Python 3.11 an interrupted Thread.join takes a live thread for dead, hence the event.
        if self.ended.wait(timeout_s):
            self._thread.join()

    def result(self) -> T:
        """Return what the call returned, or raise what it raised; only after it has ended."""
        if self._error is not None:
            raise self._error
        return self._value[0]
