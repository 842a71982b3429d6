"""A child process that never outlives its parent, not even one that is killed with SIGKILL.

    parent ──(pipe: one-letter orders)──▶ guard ──(fork)──▶ child
           ◀──(pipe: the child's pid, then a line for each order carried out)──

The guard is this file, run as a program of its own. It ends the child when the pipe from the parent closes or when it
is no longer the parent's child: both happen when the parent *process* ends, for whatever reason, and neither when the
*thread* that started the guard does (a parent-death signal alone would fire then). Should the guard itself be killed,
the kernel kills the child (Linux only). Orders go through the guard, which reaps the child: a pid is never signalled
after its process has ended.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

TERMINATE, KILL, PAUSE, RESUME = b"T", b"K", b"Z", b"C"
DISCARD = b"X"  # kill the child and remove what it wrote, whatever happens to the parent meanwhile
SIGNAL_OF = {
    TERMINATE: signal.SIGTERM,
    KILL: getattr(signal, "SIGKILL", signal.SIGTERM),
    PAUSE: getattr(signal, "SIGSTOP", None),
    RESUME: getattr(signal, "SIGCONT", None),
}
PARENT_CHECK_SECONDS = 0.5  # a fork of the parent may hold the pipe open after the parent's death
GRACE_SECONDS = 8.0  # for an orderly end once the parent is gone
PR_SET_PDEATHSIG = 1  # prctl(2)


class GuardedProcess:
    """A running child, its guard, and the orders that one may give.

    `output` receives what the child prints (appended). `scratch` is removed by `discard`, and when the parent dies
    without a goodbye; after `stop` it is the caller's to keep or remove.
    """

    def __init__(self, command: Sequence[str], *, output: Path, scratch: Path | None = None) -> None:
        arguments = [sys.executable, "-I", "-S", __file__, str(scratch or ""), *command]
        with output.open("ab") as sink:
            # A session of its own: Ctrl-C in the terminal reaches the parent only, which then ends the child in order.
            self._guard = subprocess.Popen(
                arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=sink, start_new_session=True
            )
        assert self._guard.stdout is not None
        self._replies = self._guard.stdout
        line = self._replies.readline()
        if not line:
            self._guard.wait()
            self._close()
            raise OSError(f"{command[0]} could not be started; see {output}")
        self.pid = int(line)

    def poll(self) -> int | None:
        """The child's exit code (negative: ended by that signal), None while it runs."""
        code = self._guard.poll()
        if code is not None:
            self._close()
        return None if code is None else _as_subprocess_code(code)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the child's end; raises subprocess.TimeoutExpired."""
        code = self._guard.wait(timeout)
        self._close()
        return _as_subprocess_code(code)

    def order(self, letter: bytes) -> None:
        """Have the guard signal the child, return when it has; nothing happens where the child has ended already."""
        assert self._guard.stdin is not None
        with contextlib.suppress(OSError, ValueError):  # the guard has ended, with the child
            self._guard.stdin.write(letter)
            self._guard.stdin.flush()
            self._replies.readline()

    def stop(self, grace: float) -> int:
        """Ask the child to end, kill it after `grace` seconds, return its exit code."""
        self.order(RESUME)
        self.order(TERMINATE)
        try:
            return self.wait(grace)
        except subprocess.TimeoutExpired:
            self.order(KILL)
            return self.wait()

    def discard(self) -> None:
        """Kill the child and remove `scratch`; done to the end even if this process dies meanwhile."""
        self.order(DISCARD)
        self.wait()

    def _close(self) -> None:
        if self._guard.stdin is not None:
            with contextlib.suppress(OSError):
                self._guard.stdin.close()
        self._replies.close()


def _as_subprocess_code(code: int) -> int:
    return 128 - code if code > 128 else code


def main(scratch: str, *command: str) -> int:
    """The guard: start the command, tell its pid, obey orders, and outlive neither parent nor child."""
    parent = os.getppid()
    events: queue.SimpleQueue[bytes | int] = queue.SimpleQueue()  # orders, b"" for "the parent is gone", an exit code
    before_exec = _die_with_guard()
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=sys.stderr,
        preexec_fn=before_exec,  # noqa: PLW1509 - unsafe beside threads only, and none runs yet
    )
    _tell(child.pid)
    threading.Thread(target=lambda: events.put(child.wait()), daemon=True).start()
    threading.Thread(target=_read_orders, args=(events,), daemon=True).start()
    while True:
        match _next_event(events, parent):
            case int(code):
                return code if code >= 0 else 128 - code
            case b"":
                _end(child)
                _sweep(scratch)
                return 0
            case b"X":  # DISCARD
                child.kill()
                child.wait()
                _sweep(scratch)
                return 0
            case order:
                _signal(child, order)
                _tell("done")


def _next_event(events: queue.SimpleQueue[bytes | int], parent: int) -> bytes | int:
    while True:
        with contextlib.suppress(queue.Empty):
            return events.get(timeout=PARENT_CHECK_SECONDS)
        if os.getppid() != parent:
            return b""


def _tell(reply: object) -> None:
    sys.stdout.write(f"{reply}\n")
    sys.stdout.flush()


def _read_orders(events: queue.SimpleQueue[bytes | int]) -> None:
    while order := os.read(0, 1):
        events.put(order)
    events.put(b"")


def _signal(child: subprocess.Popen[bytes], order: bytes) -> None:
    number = SIGNAL_OF.get(order)
    if number is not None:
        child.send_signal(number)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Nobody is left to ask: end the child, first politely."""
    _signal(child, RESUME)
    _signal(child, TERMINATE)
    try:
        child.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        child.kill()
        child.wait()


def _sweep(scratch: str) -> None:
    if scratch:
        shutil.rmtree(scratch, ignore_errors=True)


def _die_with_guard() -> Callable[[], None] | None:
    """What the child runs before its program starts: the kernel is to kill it when the guard dies."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl
    guard = os.getpid()

    def ask_kernel() -> None:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:  # the guard died before the kernel was asked
            os.kill(os.getpid(), signal.SIGKILL)

    return ask_kernel


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
