"""Ends a process in which no thread of Python can run any more, because one never gives the interpreter's lock back.

A regular expression that goes on for ever does that, or native code. Nothing written in Python can notice it; what can:

- the kernel: a timer on the processor time of the main thread (timer_create(2), Linux). It stands still while the
  process does not run, so neither a stopped process nor a busy machine sets it off;
- a thread of C (`faulthandler`), by the wall clock: for a main thread that is stuck and computes nothing, and for other
  systems. It also takes a process for frozen that was stopped for so long.

Both write to stderr where every thread stood, then the process ends: by SIGVTALRM, or with exit code 1.
"""

from __future__ import annotations

import ctypes
import faulthandler
import signal
import sys
import threading
import time
from typing import Any

_SIGEV_SIGNAL = 0
_STDERR = 2


class _SigEvent(ctypes.Structure):
    _fields_ = (
        ("value", ctypes.c_void_p),
        ("signo", ctypes.c_int),
        ("notify", ctypes.c_int),
        ("rest", ctypes.c_byte * 48),
    )


class _Time(ctypes.Structure):
    """A `struct itimerspec` without repetition."""

    _fields_ = (
        ("every_s", ctypes.c_long),
        ("every_ns", ctypes.c_long),
        ("after_s", ctypes.c_long),
        ("after_ns", ctypes.c_long),
    )


class FrozenAlarm:
    """Ends this process unless it is reset in time; made by the main thread. There can be one per process."""

    def __init__(self, cpu_s: float, wall_s: float) -> None:
        """After so many seconds of the main thread's processor time, or of wall clock, without a reset."""
        self._cpu_s = cpu_s
        self._wall_s = wall_s
        self._timer = _MainThreadTimer() if sys.platform.startswith("linux") else None

    def reset(self) -> None:
        """Somebody runs. Takes about 50 microseconds."""
        if self._timer is not None:
            self._timer.set(self._cpu_s)
        faulthandler.dump_traceback_later(self._wall_s, exit=True, file=_STDERR)

    def cancel(self) -> None:
        """Nobody will reset it any more, and nothing shall happen."""
        if self._timer is not None:
            self._timer.set(0)
        faulthandler.cancel_dump_traceback_later()


class _MainThreadTimer:
    """A timer on the processor time that the main thread has used; then the stacks are written and a signal kills."""

    def __init__(self) -> None:
        faulthandler.register(signal.SIGVTALRM, file=_STDERR, all_threads=True, chain=True)
        self._libc: Any = ctypes.CDLL(None, use_errno=True)
        self._id = ctypes.c_void_p()
        clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
        event = _SigEvent(None, signal.SIGVTALRM, _SIGEV_SIGNAL)
        if self._libc.timer_create(ctypes.c_int(clock), ctypes.byref(event), ctypes.byref(self._id)):
            raise OSError(ctypes.get_errno(), "timer_create")

    def set(self, seconds: float) -> None:
        """From now on; 0: never."""
        whole = int(seconds)
        after = _Time(0, 0, whole, int((seconds - whole) * 1e9))
        if self._libc.timer_settime(self._id, 0, ctypes.byref(after), None):
            raise OSError(ctypes.get_errno(), "timer_settime")
