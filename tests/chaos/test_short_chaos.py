"""The short form of `make chaos`: real processes under load, the most telling faults once each, all compared."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.chaos_run import run, short_scale

pytestmark = [pytest.mark.integration, pytest.mark.chaos, pytest.mark.slow]


def test_nothing_is_lost_doubled_or_reordered_whatever_fails(tmp_path: Path) -> None:
    """At least 15 faults that the event log proves, in moves, epochs, network and broker, and zombies, within minutes.

    A read_committed observer sees from the first to the last record what stands in the topics in the end.
    """
    report = run(short_scale(tmp_path))
    assert not report.faults, f"{report.summary()}\nseed {report.seed}, logs in {tmp_path}"
    assert report.counted >= 15
    assert {"move", "epoch", "zombie", "network", "broker"} <= report.groups
    assert report.observed > 2 * report.given
