"""The reader of reports: what it cannot read costs time, and nothing else."""

from __future__ import annotations

import pytest

from kstate.coordinator.edges import LeaderEdges
from kstate.coordinator.reports import ReportsReader, send_report
from kstate.errors import DataLossError, RetryableError
from kstate.interfaces import Batch, TopicSpec
from kstate.messages import LeaderBeat
from kstate.plan import reports_topic
from kstate.testing.memory_log import MemoryLog
from kstate.testing.virtual_time import VirtualClock
from tests.support.leaders import Silent


def test_a_reader_that_lost_its_place_finds_another_when_the_broker_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker that comes back truncated, and does not answer yet: the leader must not stay deaf."""
    clock = VirtualClock()
    log = MemoryLog(clock)
    log.create_topics([TopicSpec(reports_topic("app"), 1)])
    edges = LeaderEdges(log, clock, Silent())
    reader = ReportsReader(edges, "app")
    reader.start_now()

    def lost(max_records: int, timeout: float) -> list[Batch]:
        raise DataLossError("out of range")

    def away(*_: object, **__: object) -> None:
        raise RetryableError("nobody answers")

    with monkeypatch.context() as patched:
        patched.setattr(reader._reader, "poll", lost)
        patched.setattr(log, "end_offsets", away)
        for _ in range(2):
            with pytest.raises(RetryableError):
                reader.poll()
    assert reader.poll() == []
    send_report(edges, "app", LeaderBeat(1, "leader"))
    assert reader.poll() == [LeaderBeat(1, "leader")]
