"""The heartbeat thread."""

import subprocess
import sys
import threading

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
import sys, time
from kstate.adapters.heart import HeartbeatThread, main_thread_at
with HeartbeatThread(lambda: None, 0.05, frozen_s=0.6):
    time.sleep(1.5)  # beats go out: nothing happens
    print("alive", flush=True)
    sum(range(10**12))  # one call of native code, which does not let the other thread run
"""


def test_a_process_that_cannot_even_beat_ends_and_says_where_it_stood() -> None:
    """Native code, or a regular expression that never ends, holds the interpreter's lock."""
    done = subprocess.run([sys.executable, "-c", FROZEN], capture_output=True, text=True, timeout=30, check=False)
    assert (done.returncode, done.stdout) == (1, "alive\n")
    assert 'File "<string>", line 7 in <module>' in done.stderr


def test_where_the_main_thread_is_can_be_told_from_another_one() -> None:
    """The innermost call first."""
    told: list[str] = []

    def wait_here() -> None:
        with HeartbeatThread(lambda: told.append(main_thread_at()), 0.005):
            while not told:
                pass

    wait_here()
    assert told[0].startswith(f"wait_here ({__file__}:")
