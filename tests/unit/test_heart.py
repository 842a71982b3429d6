"""The heartbeat thread."""

import threading

import pytest

from kstate.adapters.heart import HeartbeatThread


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
