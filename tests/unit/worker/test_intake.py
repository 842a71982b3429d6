"""How many records an epoch asks for, so that it ends in time."""

from __future__ import annotations

import pytest

from kstate.config import EpochSettings
from kstate.worker.intake import POLL_RECORDS_MIN, Intake

LIMITS = EpochSettings(poll_records=10_000, records_max=50_000)


@pytest.mark.parametrize(
    ("intake", "record_s", "asked"),
    [
        (Intake(), 0.0, 10_000),
        (Intake(started=0.0, records=45_000), 0.0, 5_000),
        (Intake(), 10e-6, 5_000),
        (Intake(started=9.94), 10e-6, 2_000),
        (Intake(started=9.9), 10e-6, 1_250),
        (Intake(started=0.0), 10e-6, 1_250),
        (Intake(started=9.94), 1e-6, 10_000),
        (Intake(), 1.0, POLL_RECORDS_MIN),
        (Intake(started=0.0, records=49_990), 1.0, 10),
    ],
    ids=[
        "nothing is known: a poll",
        "nothing is known: what the epoch may still take",
        "half of an empty epoch",
        "half of the rest",
        "hardly any rest: an eighth of an epoch",
        "late: an eighth of an epoch",
        "fast: no more than a poll",
        "slow: no fewer than a poll is worth",
        "slow and full",
    ],
)
def test_a_poll_asks_for_what_half_of_the_rest_of_the_epoch_suffices_for(
    intake: Intake, record_s: float, asked: int
) -> None:
    """At an epoch of 0.1 s, at second 10."""
    assert intake.room(LIMITS, 0.1, record_s, 10.0) == pytest.approx(asked, abs=1)
