"""Heartbeats from a thread of their own: a handler that computes for long must not make its worker look dead.

The thread that beats also watches: a handler in an endless loop of Python is noticed by it (`watch`), and one that lets
no other thread run by what it resets with each beat (kstate.adapters.frozen).
"""

from __future__ import annotations

import logging
import os
import sys
import threading
import time
import traceback
from collections.abc import Callable
from types import TracebackType

from kstate.adapters.frozen import FrozenAlarm

_logger = logging.getLogger(__name__)

_JOIN_SECONDS = 2.0
"""How long an end waits for a beat that is being sent; the thread never keeps a process alive."""


class HeartbeatThread:
    """Calls `watch`, then `send`, every `interval` seconds while it is entered.

    What they raise is logged, the next beat comes.
    """

    def __init__(
        self,
        send: Callable[[], None],
        interval: float,
        watch: Callable[[], None] = lambda: None,
        frozen: FrozenAlarm | None = None,
    ) -> None:
        """`frozen` None: a process that cannot beat lives on."""
        self._calls = (watch, send)
        self._interval = interval
        self._frozen = frozen
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="heartbeat", daemon=True)

    def __enter__(self) -> HeartbeatThread:
        if self._frozen is not None:
            self._frozen.reset()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._thread.join(_JOIN_SECONDS)
        if self._frozen is not None:
            self._frozen.cancel()

    def _run(self) -> None:
        while not self._over.wait(self._interval):
            if self._frozen is not None:
                self._frozen.reset()
            for call in self._calls:
                try:
                    call()
                except Exception as error:  # noqa: BLE001 (a thread that dies of one bad beat is a worker declared dead)
                    _logger.warning("a heartbeat was not sent: %s", error)


def main_thread_at() -> str:
    """Where the main thread is just now, innermost line first: `f (file.py:12) ← g (…)`."""
    frame = sys._current_frames().get(threading.main_thread().ident or 0)  # noqa: SLF001 (the only way there is)
    calls = traceback.extract_stack(frame)[-4:] if frame is not None else []
    return " ← ".join(f"{call.name} ({call.filename}:{call.lineno})" for call in reversed(calls))


def cpu_s() -> float:
    """Processor time of the calling thread, seconds."""
    return time.thread_time()


def end_now(exit_code: int) -> None:
    """End this process without another instruction of it."""
    sys.stderr.flush()
    os._exit(exit_code)
