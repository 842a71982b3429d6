"""Processes of one machine: starting children that die with their parent, incarnation ids, signals.

A child gets its parent's pid as an argument and asks the kernel, first thing, to be killed when that parent dies
(PR_SET_PDEATHSIG, Linux); a parent that died before that is noticed by its pid. So nothing runs between fork and exec,
and no orphan stays, not even of a supervisor that was killed with SIGKILL.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from kstate.errors import RetryableError

STOP_S = 4.0
"""An orderly stop takes an epoch's commit; all in all a stop must not take more than five seconds."""

_PR_SET_PDEATHSIG = 1


class Child:
    """A child in a session of its own: a Ctrl-C in the terminal reaches only the parent, which ends it in order."""

    def __init__(self, arguments: Sequence[str]) -> None:
        """`arguments` of the command `kstate`; this process's id is appended as --parent."""
        command = [sys.executable, "-m", "kstate", *arguments, "--parent", str(os.getpid())]
        self._process = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True)

    @property
    def pid(self) -> int:
        return self._process.pid

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.poll()

    def terminate(self) -> None:
        """Ask it to end in order; one that was stopped is woken up for it."""
        if self.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it now, and reap it."""
        if self.poll() is None:
            self._process.kill()
        self._process.wait()


def die_with(parent: int | None) -> None:
    """Called by a child: be killed when the parent dies, exit when it is dead already; None: it was not started so."""
    if parent is None:
        return
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def new_incarnation(app: str, name: str) -> str:
    """An id for one start of a worker or leader: its transactional id, never used again."""
    return f"{app}-{name}-{secrets.token_hex(6)}"


def new_order_id() -> str:
    """An id for what a person asks of the leader, never used again."""
    return secrets.token_hex(5)


def on_stop(stop: Callable[[], None], overdue: Callable[[], object] | None = None, within_s: float = STOP_S) -> None:
    """SIGTERM, SIGINT and SIGHUP call `stop`, in the main thread between two instructions of Python.

    With `overdue` a process that has not ended `within_s` seconds later, say because the broker is away, calls that and
    ends as if it had been killed: whatever may be killed at any moment may also end so.
    """

    def handler(number: int, frame: FrameType | None) -> None:  # noqa: ARG001 (the form of a signal handler)
        stop()
        if overdue is not None:
            watchdog = threading.Timer(within_s, _end, [overdue])
            watchdog.daemon = True
            watchdog.start()

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, handler)


def _end(overdue: Callable[[], object]) -> None:
    overdue()
    os._exit(RetryableError.exit_code)


def where_am_i() -> tuple[str, int]:
    """Host name and process id, for people."""
    return socket.gethostname(), os.getpid()
