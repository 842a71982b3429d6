"""The reports topic: plain records, level-triggered, so that a lost or unreadable one costs nothing but time."""

from __future__ import annotations

from kstate.clock import Step, Steps
from kstate.coordinator.edges import LeaderEdges
from kstate.errors import DataLossError, DecodeError
from kstate.messages import Report
from kstate.plan import TopicPartition, reports_topic
from kstate.wire import decode_report, encode_report

_POLL_RECORDS = 1_000
REPORTS_WAIT = Step("reports-wait", wait=0.01)


class ReportsReader:
    """Follows the reports topic from some moment on."""

    def __init__(self, edges: LeaderEdges, app: str) -> None:
        self._edges = edges
        self._partition = TopicPartition(reports_topic(app), 0)
        self._reader = edges.log.reader()
        self._position = 0
        self._lost = False
        """Where it stood there is nothing any more; it has no other place yet."""

    def start_now(self) -> None:
        """Read what comes from now on."""
        self._assign(self._edges.log.end_offsets([self._partition], committed=True)[self._partition])

    def start_since(self, time_ms: int) -> None:
        """Read from the first report at or after this time of the wall clock."""
        self._assign(self._edges.log.offsets_at([self._partition], time_ms)[self._partition])

    def poll(self) -> list[Report]:
        """The reports that came since, without waiting. Raises RetryableError."""
        if self._lost:
            self.start_now()
        try:
            batches = self._reader.poll(_POLL_RECORDS, 0.0)
        except DataLossError:  # this process slept for longer than reports are kept: the newest ones say it all
            self._lost = True
            self.start_now()
            return []
        reports: list[Report] = []
        for batch in batches:
            reports += (
                r for o, v in zip(batch.offsets, batch.values, strict=True) if (r := self._decoded(o, v or b""))
            )
            self._position = batch.next_offset
        return reports

    def present(self) -> Steps[list[Report]]:
        """Everything that stands there now, from the position on."""
        end = self._edges.log.end_offsets([self._partition], committed=True)[self._partition]
        reports = self.poll()
        while self._position < end:
            yield REPORTS_WAIT
            reports += self.poll()
        return reports

    def close(self) -> None:
        """Give the reader up."""
        self._reader.close()

    def _assign(self, offset: int) -> None:
        self._position = offset
        self._reader.assign({self._partition: offset})
        self._lost = False

    def _decoded(self, offset: int, value: bytes) -> Report | None:
        try:
            return decode_report(value)
        except DecodeError as error:
            self._edges.logger.warning(
                "unreadable report skipped", where=f"{self._partition}@{offset}", reason=str(error)
            )
            return None


def send_report(edges: LeaderEdges, app: str, report: Report) -> None:
    """Send a report without waiting; may be called from any thread."""
    edges.log.report(reports_topic(app), {"value": encode_report(report), "partition": 0})
