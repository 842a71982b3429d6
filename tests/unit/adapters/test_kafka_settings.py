"""Properties of Kafka clients, secrets, and what error codes mean."""

from __future__ import annotations

import logging

import pytest

from kstate.adapters.kafka_errors import Meaning, meaning, out_of_range, translated
from kstate.adapters.kafka_settings import (
    admin_properties,
    producer_properties,
    reader_properties,
    report_properties,
    scrubbed,
)
from kstate.adapters.kafka_watch import ClientCallError, ClientWatch
from kstate.config import FailureSettings, Settings
from kstate.errors import ConfigError, DataLossError, FencedError, KstateError, RetryableError
from kstate.plan import TopicPartition

UNSAFE = {
    "isolation.level": "read_uncommitted",
    "auto.offset.reset": "earliest",
    "enable.auto.commit": "true",
    "enable.partition.eof": "false",
    "check.crcs": "false",
    "client.rack": "far",
    "acks": "1",
    "enable.idempotence": "false",
    "transactional.id": "mine",
    "log.connection.close": "false",
    "log_level": "3",
    "debug": "msg",
    "allow.auto.create.topics": "true",
    "bootstrap.servers": "elsewhere:1",
}


def test_users_properties_pass_through() -> None:
    """To every client, over our defaults."""
    client = {"security.protocol": "SASL_SSL", "sasl.password": "hunter2", "linger.ms": "50", "fetch.wait.max.ms": "7"}
    settings = Settings(client=client)
    for properties in (
        reader_properties(settings),
        producer_properties(settings, "w"),
        admin_properties(settings),
        report_properties(settings),
    ):
        assert properties["sasl.password"] == "hunter2"
        assert properties["security.protocol"] == "SASL_SSL"
        assert properties["bootstrap.servers"] == settings.bootstrap_servers
    assert reader_properties(settings)["fetch.wait.max.ms"] == "7"
    assert producer_properties(settings, "w")["linger.ms"] == "50"


def test_nobody_can_switch_safety_off() -> None:
    """What the rules rest on is set last."""
    settings = Settings(client=UNSAFE)
    reader, producer = reader_properties(settings), producer_properties(settings, "w")
    assert reader["isolation.level"] == "read_committed"
    assert reader["auto.offset.reset"] == "error"
    assert (reader["enable.auto.commit"], reader["enable.partition.eof"], reader["check.crcs"]) == (False, True, True)
    assert "client.rack" not in reader
    assert (producer["acks"], producer["enable.idempotence"]) == ("all", True)
    assert producer["transactional.id"] == "w"
    assert (producer["log.connection.close"], producer["log_level"], producer["debug"]) == (True, 7, "broker,msg")
    for properties in (reader, producer, admin_properties(settings)):
        assert properties["allow.auto.create.topics"] is False
        assert properties["bootstrap.servers"] == "127.0.0.1:9092"
    assert (reader["log_level"], reader["debug"]) == (7, "topic,msg")


def test_requests_end_before_their_transaction() -> None:
    """Librdkafka demands it."""
    settings = Settings(failure=FailureSettings(transaction_timeout_ms=2_000))
    assert producer_properties(settings, "w")["socket.timeout.ms"] == 2_000
    assert producer_properties(Settings(), "w")["socket.timeout.ms"] == 5_000


def test_secrets_are_never_shown() -> None:
    """Neither in texts nor in the client's log or errors."""
    client = {"sasl.password": "hunter2", "ssl.key.pem": "hunter22", "client.id": "visible", "sasl.jaas.config": ""}
    text = scrubbed("hunter22 and hunter2 of visible", client)
    assert text == "*** and *** of visible"
    watch = ClientWatch(Settings(client=client))
    watch.log(logging.ERROR, "%s [%s] %s", "FAIL", "p", "login with hunter2 failed")
    watch.note(ClientCallError("_AUTHENTICATION", "hunter2 is wrong"))
    shown = [*watch.troubles, str(watch.judged(ClientCallError("_TIMED_OUT", "hunter2"), "opening"))]
    assert shown
    assert not any("hunter2" in line for line in shown)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        ("_FENCED", FencedError),
        ("INVALID_PRODUCER_EPOCH", FencedError),
        ("OFFSET_OUT_OF_RANGE", DataLossError),
        ("TOPIC_AUTHORIZATION_FAILED", ConfigError),
        ("UNKNOWN_TOPIC_OR_PART", ConfigError),
        ("_TRANSPORT", RetryableError),
        ("A_CODE_OF_THE_FUTURE", RetryableError),
    ],
)
def test_every_code_asks_for_one_thing(code: str, kind: type[KstateError]) -> None:
    """One table; what stands in no row may be retried."""
    error = translated(code, "said Kafka", "reading t[0]")
    assert type(error) is kind
    assert str(error).startswith(f"reading t[0]: said Kafka ({code}).")


def test_mistakes_come_with_a_mend() -> None:
    """ConfigError and DataLossError say what to do."""
    for code in ("TOPIC_AUTHORIZATION_FAILED", "_INVALID_ARG", "OFFSET_OUT_OF_RANGE"):
        assert meaning(code) in {Meaning.CONFIG, Meaning.DATA_LOSS}
        assert "Mend: " in str(translated(code, "x", "y"))


def test_a_lost_position_is_explained() -> None:
    """By the bounds of the log; a position within them means another topic of the same name."""
    source = TopicPartition("t", 0)
    assert "the log is [10, 20)" in str(out_of_range(source, 5, 10, 20))
    assert "earlier topic" in str(out_of_range(source, 15, 10, 20))
    assert "not in the log" in str(out_of_range(source, 15, None, None))


def test_a_login_that_fails_is_a_mistake_though_the_call_only_timed_out() -> None:
    """The client tells of it in its error callback and keeps trying."""
    watch = ClientWatch(Settings())
    watch.note(ClientCallError("_AUTHENTICATION", "SASL authentication failed"))
    with pytest.raises(ConfigError, match="user and password"):
        raise watch.judged(ClientCallError("_TIMED_OUT", "timed out"), "opening 'w'")


@pytest.mark.parametrize("facility", ["PARTCNT", "GETPID", "COMPRESSION", "CONFWARN"])
def test_remarks_are_no_trouble(facility: str) -> None:
    """Of what the client logs, only that taints which concerns requests under way."""
    watch = ClientWatch(Settings())
    watch.log(logging.WARNING, "%s [%s] %s", facility, "p", "a remark")
    watch.log(logging.DEBUG, "%s [%s] %s", "WAKEUP", "p", "Wake-up sent")
    assert watch.troubles == []
    watch.log(logging.INFO, "%s [%s] %s", "REQTMOUT", "p", "Timed out EndTxnRequest in flight")
    assert len(watch.troubles) == 1


def test_a_topic_made_anew_is_noticed_by_its_id() -> None:
    """The first id is news, not a change; the client tells both in the same words."""
    watch = ClientWatch(Settings())

    def line(new: str) -> None:
        watch.log(10, "%s [%s] %s", "METADATA", "c", f"[thrd:main]: Topic orders changed id from AAAA to {new}")

    line("id-1")
    line("id-1")
    assert not watch.made_anew
    line("id-2")
    assert watch.made_anew == {"orders"}
