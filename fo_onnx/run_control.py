"""What ends a run: its deadline, or whoever waits for it. One `RunControl` per call, known in every thread that works for it.

Whatever takes long looks at the control of its thread (`current`): between rows, before and after calls of the model. A
call that can be cut off, as ONNX Runtime's can, leaves there how. Nothing of this is shared by two calls, so that the end
of one never touches another.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from .errors import RunError
from .options import check_timeout
from .signals import wait_until

T = TypeVar("T")
NAMED_S = 0.1
"""A call that ends later than this after the deadline is named in the error."""


class TimeUp(RunError):
    """The run took longer than ``timeout_s``."""


class RunEnded(BaseException):
    """A run is over, on its way up to where it began; `begin` makes a `RunError` of it.

    No `Exception`, as KeyboardInterrupt is none: on the way nobody may take it for a failure of the model, of a row or of
    an export, and go on with something else.

    Attributes:
        error: What the caller gets.
    """

    def __init__(self, error: RunError) -> None:
        super().__init__(str(error))
        self.error = error


class RunControl:
    """Ends one run: at its deadline by itself, or when `stop` is called. For any thread."""

    def __init__(self, timeout_s: float | None = None) -> None:
        """Begins to count.

        Args:
            timeout_s: Seconds from now until the deadline; ``None`` for none.
        """
        self.timeout_s = timeout_s
        self._deadline = None if timeout_s is None else time.monotonic() + timeout_s
        self._state = threading.Condition()  # of the calls in progress, and whether it was stopped
        self._ends: dict[object, Callable[[], None] | None] = {}
        self._at_end: list[Callable[[], None]] = []
        self._stopped = False
        self._waited = ""

    @property
    def has_deadline(self) -> bool:
        """Whether it ends by itself."""
        return self._deadline is not None

    def left_s(self) -> float | None:
        """Seconds until the deadline, 0 after it; ``None`` where there is none."""
        return (
            None if self._deadline is None else min(max(self._deadline - time.monotonic(), 0.0), threading.TIMEOUT_MAX)
        )

    def check(self, doing: str = "") -> None:
        """Returns while the run may go on.

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
        """The end by the deadline; the message names `doing`, or the call that had to be waited for."""
        where = self._waited or (f" {doing}" if doing else "")
        return RunEnded(TimeUp(f"the run reached its timeout_s={self.timeout_s:g} s{where}."))

    def stop(self) -> None:
        """Cuts off the calls in progress, and lets every later `check` end the run."""
        with self._state:
            self._stopped = True
            ends = [end for end in self._ends.values() if end is not None]
        for end in ends:
            end()

    def let_calls_end(self) -> None:
        """Waits until no call is in progress that cannot be cut off."""

        def ended(seconds: float | None) -> bool:
            with self._state:
                return self._state.wait_for(lambda: None not in self._ends.values(), seconds)

        wait_until(ended)

    @contextmanager
    def calling(self, call: str, end: Callable[[], None] | None = None) -> Iterator[None]:
        """Surrounds one long call that does not look at this control.

        What it gives is kept also where the deadline has passed meanwhile: the next `check` ends the run, and names the
        call if it held the run up.

        Args:
            call: What it is, for messages: ``"the export"``.
            end: Cuts it off, from another thread; ``None`` where that is not possible and the call is let end.

        Raises:
            RunEnded: The run was over before it; or the call failed, and the run was over by then.
        """
        self.check(f"before {call}")
        begun, key = time.monotonic(), object()
        with self._state:
            self._ends[key] = end
            stopped = self._stopped
        if stopped and end is not None:
            end()
        try:
            yield
        except Exception as err:
            self._note(call, begun)
            try:
                self.check(f"during {call}")
            except RunEnded as ended:
                raise ended from err
            raise
        finally:
            with self._state:
                self._note(call, begun)
                del self._ends[key]
                self._state.notify_all()

    def _note(self, call: str, begun: float) -> None:
        now = time.monotonic()
        if self._deadline is not None and begun < self._deadline < now - NAMED_S:
            self._waited = f"; it had to wait until {call} of {now - begun:.1f} s ended"

    @contextmanager
    def holding(self, lock: Any, doing: str) -> Iterator[None]:
        """Holds a lock, for which it waits no longer than the run may last."""
        left_s = self.left_s()
        if not lock.acquire(timeout=-1 if left_s is None else left_s):
            raise self.time_up(doing)
        try:
            yield
        finally:
            lock.release()

    def bounded(self, read: Callable[[], T], doing: str) -> T:
        """Returns what `read` gives; where the run has a deadline, it is called in a thread that is not waited for longer.

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
        """Has `function` called when the run is over, however it ends."""
        self._at_end.append(function)

    @contextmanager
    def entered(self) -> Iterator[None]:
        """Makes this the control of the calling thread, and of the threads that `ThreadCall` starts from it."""
        token = _CURRENT.set(self)
        try:
            yield
        finally:
            _CURRENT.reset(token)

    def _over(self) -> None:
        self.stop()
        while self._at_end:
            self._at_end.pop()()


_ENDLESS = RunControl()
_CURRENT: contextvars.ContextVar[RunControl] = contextvars.ContextVar("fo_onnx_run", default=_ENDLESS)


def current() -> RunControl:
    """The control of what the calling thread works for; outside of every run one that never ends."""
    return _CURRENT.get()


def is_endless(control: RunControl) -> bool:
    """Whether this is the control outside of every run."""
    return control is _ENDLESS


@contextmanager
def begin(timeout_s: float | None) -> Iterator[RunControl]:
    """Surrounds one call of the user: a run, or a prediction. What happens in it ends at the deadline.

    Within another one the earlier deadline counts.

    Args:
        timeout_s: Seconds from now on; ``None`` for no deadline but the outer one.

    Raises:
        OptionError: `timeout_s` is no number above 0.
        TimeUp: The deadline has passed.
    """
    check_timeout(timeout_s)
    control, outer = RunControl(timeout_s), current()
    if outer._deadline is not None and (control._deadline is None or outer._deadline < control._deadline):
        control.timeout_s, control._deadline, control._waited = outer.timeout_s, outer._deadline, outer._waited
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
        control._over()


class ThreadCall(Generic[T]):
    """A call in a thread of its own, so that who waits for it hears Ctrl-C, and may wait no longer.

    Attributes:
        ended: Set when it has ended.
    """

    def __init__(self, function: Callable[[], T], name: str) -> None:
        """Starts the thread; `function` is called in the context of the caller."""
        self._function = function
        self._value: list[T] = []
        self._error: BaseException | None = None
        self.ended = threading.Event()
        context = contextvars.copy_context()
        threading.Thread(target=context.run, args=(self._work,), name=name, daemon=True).start()

    def _work(self) -> None:
        try:
            self._value.append(self._function())
        except BaseException as err:  # it belongs to whoever waits
            self._error = err
        finally:
            self.ended.set()

    def result(self) -> T:
        """What the call gave, or raises what it raised; only after it has ended."""
        if self._error is not None:
            raise self._error
        return self._value[0]
