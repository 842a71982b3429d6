"""The broker that the other integration tests share is the one that it claims to be."""

from __future__ import annotations

from dataclasses import replace

import pytest

from kstate.adapters.broker_setup import new_cluster_id
from kstate.testing.real_kafka import KafkaUnderTest
from tests.support.containers import assert_runs_in_its_container, cluster_id_told_by

pytestmark = pytest.mark.integration


def test_the_broker_answers_with_the_cluster_id_that_was_chosen_for_this_start(kstate_kafka: KafkaUnderTest) -> None:
    """The id is random per start, so nothing else on the machine can answer with it."""
    assert cluster_id_told_by(kstate_kafka.bootstrap_servers) == kstate_kafka.cluster_id


def test_a_claimed_container_is_one_that_this_session_started(kstate_kafka: KafkaUnderTest) -> None:
    """With KSTATE_REQUIRE_DOCKER every test on the shared broker makes this check first (see conftest)."""
    if kstate_kafka.kind == "container":
        assert_runs_in_its_container(kstate_kafka)
    else:
        assert kstate_kafka.container_id is None


def test_a_broker_that_is_not_the_claimed_container_is_noticed(kstate_kafka: KafkaUnderTest) -> None:
    """The embedded broker, or another broker's id, does not pass for the container."""
    with pytest.raises(AssertionError):
        assert_runs_in_its_container(replace(kstate_kafka, kind="embedded"))
    if kstate_kafka.kind == "container":
        with pytest.raises(AssertionError):
            assert_runs_in_its_container(replace(kstate_kafka, cluster_id=new_cluster_id()))
