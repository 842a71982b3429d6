"""Properties of Kafka clients (librdkafka's names), layered: our defaults, then the user's, then what safety needs.

Sources: librdkafka's CONFIGURATION.md; the figures behind the defaults stand in ARCHITECTURE.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from kstate.config import Settings, is_secret

Properties = dict[str, str | int | bool]

REQUEST_MS: Final = 5_000
REQUEST_SECONDS: Final = REQUEST_MS / 1000
"""How long one request may take before the broker counts as unreachable."""

_COMMON: Final[Properties] = {
    "client.id": "kstate",
    "socket.timeout.ms": REQUEST_MS,
    "socket.keepalive.enable": True,
    "retry.backoff.ms": 20,
    "reconnect.backoff.ms": 50,
    "reconnect.backoff.max.ms": 1000,
    "topic.metadata.refresh.interval.ms": 10_000,  # a reader may wait that long for a topic that had gone
    "topic.metadata.propagation.max.ms": 5000,  # an unknown topic is an error after that; the default is 30 s
    "enable.metrics.push": False,  # would delay the end of every client
}

_READER: Final[Properties] = {
    "group.id": "kstate",  # demanded by the client; there is no group: partitions are assigned, offsets live in markers
    "fetch.wait.max.ms": 20,
    "fetch.queue.backoff.ms": 5,
    "fetch.max.bytes": 16 << 20,
    "queued.max.messages.kbytes": 64 << 10,  # bounds the memory of a reader, together with the line above
}

_READER_SAFETY: Final[Properties] = {
    "isolation.level": "read_committed",
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "auto.offset.reset": "error",
    "enable.partition.eof": True,
    "check.crcs": True,
    # A topic that was made anew is read on at the old position without a word but in the debug lines of "topic".
    "log_level": 7,
}

MESSAGE_BYTES_MAX: Final = 1_040_000
"""The client's message.max.bytes: a value of `output_bytes_max`, its key, headers and framing, within the broker's own
limit of 1,048,588."""

_PRODUCER: Final[Properties] = {
    "linger.ms": 5,
    "message.max.bytes": MESSAGE_BYTES_MAX,
    "compression.type": "lz4",
    "queue.buffering.max.messages": 2_000_000,
    "queue.buffering.max.kbytes": 512 << 10,
}

_PRODUCER_SAFETY: Final[Properties] = {
    "acks": "all",
    "enable.idempotence": True,
    "delivery.report.only.error": False,  # tracked messages report their offsets
    # Rule S4 reads the client's log: every closed connection must stand in it. Only the debug lines of "broker" tell of
    # one that is passed over as identical to an earlier one; they cost about eight short lines per transaction.
    "log.connection.close": True,
    "log_level": 7,
}

_REPORTS: Final[Properties] = {
    "acks": "1",
    "linger.ms": 0,
    "queue.buffering.max.messages": 1000,
    "message.timeout.ms": 5000,  # an older heartbeat tells nothing
}


def reader_properties(settings: Settings) -> Properties:
    """A read_committed consumer that never guesses an offset and never reads from a follower.

    A follower (`client.rack`) may lag behind the end that S1 and S3 take from the leader, and call it out of range.
    """
    properties = _COMMON | _READER | _users(settings) | _READER_SAFETY | {"debug": _debug(settings, "topic")}
    properties.pop("client.rack", None)
    return properties


def producer_properties(settings: Settings, transactional_id: str) -> Properties:
    """A transactional producer whose transactions are short."""
    users, transaction_ms = _users(settings), settings.failure.transaction_timeout_ms
    own: Properties = {
        "transactional.id": transactional_id,
        "transaction.timeout.ms": transaction_ms,
        "debug": _debug(settings, "broker"),
        "socket.timeout.ms": min(int(users.get("socket.timeout.ms", REQUEST_MS)), transaction_ms),  # demanded
    }
    return _COMMON | _PRODUCER | users | _PRODUCER_SAFETY | own


def report_properties(settings: Settings) -> Properties:
    """A plain producer for heartbeats."""
    return _COMMON | _users(settings) | _REPORTS


def admin_properties(settings: Settings) -> Properties:
    """A client that asks about topics and offsets."""
    return _COMMON | _users(settings)


def scrubbed(text: str, client: Mapping[str, str]) -> str:
    """A text fit to be shown: the values of secret client properties are replaced."""
    secrets = [value for name, value in client.items() if value and is_secret(name)]
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return text


def _debug(settings: Settings, needed: str) -> str:
    return ",".join([needed, *filter(None, [settings.client.get("debug")])])


def _users(settings: Settings) -> Properties:
    """The user's own properties, and what no client may do."""
    return {**settings.client, "bootstrap.servers": settings.bootstrap_servers, "allow.auto.create.topics": False}
