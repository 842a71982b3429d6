"""An orderly stop of a worker: it finishes its epoch, says goodbye, and nothing has to be done again."""

from __future__ import annotations

import signal
import time
from pathlib import Path

import pytest

from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.cluster import cluster
from tests.support.oracle import assert_exactly_once
from tests.support.sabotage import IN_HANDLER, Deed, Order
from tests.support.topics import create_topics, entries, expected_tallies, produce_entries

pytestmark = pytest.mark.integration

ENTRIES = 3_000
STOP_SECONDS = 5.0


def test_a_worker_that_is_asked_to_stop_finishes_its_epoch_and_nothing_is_replayed(
    kstate_kafka: KafkaUnderTest, tmp_path: Path
) -> None:
    """SIGTERM arrives while a handler is at work and its epoch is not committed. The epoch is committed, the exit code
    is 0; the successor begins where it ended: all workers together handled every record once.
    """
    with cluster(kstate_kafka.bootstrap_servers, "tally", tmp_path) as made:
        server, results = made.bootstrap_servers, made.topic("tallies")
        create_topics(server, {made.topic("entries"): 1, results: 1})
        produce_entries(server, made.topic("entries"), entries(ENTRIES))
        made.pace(0.0005)
        made.coordinator("--workers", "1")
        worker = made.worker("one")
        made.await_step("one", "stored", 0)
        (made.folder / "hold").mkdir()
        (made.folder / "hold" / "one").touch()
        held = made.deed("one", Order(IN_HANDLER, Deed.HANG, nth=20))
        worker.signal(signal.SIGTERM)
        asked_at = time.monotonic()
        (made.folder / "hold" / "one").unlink()
        assert worker.wait(STOP_SECONDS) == 0, made.report()
        assert time.monotonic() - asked_at < STOP_SECONDS
        steps = [event for event in made.events("one") if event.at > held.at]
        assert [event.step for event in steps][-2:] == ["stored", "ended 0"]
        assert (held.hand > 0, steps[-1].hand) == (True, 0)
        made.pace(0)
        made.worker("one")
        made.await_records(results, ENTRIES)
        assert_exactly_once(server, results, expected_tallies(entries(ENTRIES)))
        assert sum(event.hand for event in made.events("one") if event.step == "committed") == ENTRIES
