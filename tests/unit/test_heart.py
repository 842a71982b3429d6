"""The heartbeat thread."""

import signal
import subprocess
import sys
import threading
import time

import pytest

from kstate.adapters.heart import HeartbeatThread, main_thread_at


def test_it_beats_while_it_is_entered_and_then_no_more() -> None:
    """Several beats come without anybody's help; after the end none does."""
    beats = threading.Semaphore(0)
    sent: list[int] = []

    def send() -> None:
        sent.append(1)
        beats.release()

    with HeartbeatThread(send, 0.005):
        for _ in range(3):
            assert beats.acquire(timeout=5)
    count = len(sent)
    assert not beats.acquire(timeout=0.05) or len(sent) == count


def test_a_beat_that_fails_does_not_end_it(caplog: pytest.LogCaptureFixture) -> None:
    """What `send` raises is logged, and the next beat goes out."""
    beats = threading.Semaphore(0)

    def send() -> None:
        beats.release()
        raise RuntimeError("no broker")

    with HeartbeatThread(send, 0.005):
        assert beats.acquire(timeout=5)
        assert beats.acquire(timeout=5)
    assert "a heartbeat was not sent: no broker" in caplog.text


def test_it_watches_before_each_beat_and_survives_what_that_raises() -> None:
    """The watch may end the process; if it fails, the beat goes out all the same."""
    calls: list[str] = []
    beats = threading.Semaphore(0)

    def watch() -> None:
        calls.append("watch")
        raise RuntimeError("cannot look")

    def send() -> None:
        calls.append("beat")
        beats.release()

    with HeartbeatThread(send, 0.005, watch):
        for _ in range(3):
            assert beats.acquire(timeout=5)
    assert calls[:6] == ["watch", "beat"] * 3


FROZEN = """
import re, sys, time
from kstate.adapters.frozen import FrozenAlarm
from kstate.adapters.heart import HeartbeatThread
with HeartbeatThread(lambda: None, 0.05, frozen=FrozenAlarm(cpu_s=0.5, wall_s=float(sys.argv[2]))):
    print("beating", flush=True)
    time.sleep(1)  # beats go out: nothing happens
    until = time.monotonic() + 1
    while time.monotonic() < until:  # other threads have their turns
        pass
    print("alive", flush=True)
    match sys.argv[1]:
        case "compute":
            re.match("(a+)+$", "a" * 40 + "b")  # takes years, and lets no other thread run
        case "wait":
            import ctypes
            ctypes.PyDLL(None).sleep(60)  # native code that waits, and lets no other thread run
"""


def line_of(text: str) -> int:
    """Its number in the program."""
    return next(number for number, line in enumerate(FROZEN.splitlines(), 1) if text in line)


def frozen(how: str, wall_s: float) -> subprocess.Popen[str]:
    """A process that is about to freeze."""
    command = [sys.executable, "-c", FROZEN, how, str(wall_s)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel's timers are Linux's")
def test_a_process_that_computes_and_cannot_even_beat_ends_and_says_where_it_stood() -> None:
    """A regular expression that never ends holds the interpreter's lock: the time is that of its own computing."""
    process = frozen("compute", 600)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (-signal.SIGVTALRM, "beating\nalive\n")
    assert f'File "<string>", line {line_of("re.match")} in <module>' in err


def test_a_process_that_is_stuck_without_computing_ends_by_the_clock() -> None:
    """Native code that waits for something, with the interpreter's lock in its hands."""
    process = frozen("wait", 2)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (1, "beating\nalive\n")
    assert f'File "<string>", line {line_of(".sleep(60)")} in <module>' in err


def test_a_process_that_is_stopped_is_not_frozen() -> None:
    """SIGSTOP, for longer than it may compute: it goes on as if nothing had been."""
    process = frozen("no", 600)
    assert process.stdout is not None
    assert process.stdout.readline() == "beating\n"
    process.send_signal(signal.SIGSTOP)
    time.sleep(1.5)
    process.send_signal(signal.SIGCONT)
    assert process.communicate(timeout=60) == ("alive\n", "")
    assert process.returncode == 0


def test_where_the_main_thread_is_can_be_told_from_another_one() -> None:
    """The innermost call first."""
    told: list[str] = []

    def wait_here() -> None:
        with HeartbeatThread(lambda: told.append(main_thread_at()), 0.005):
            while not told:
                pass

    wait_here()
    assert told[0].startswith(f"wait_here ({__file__}:")
