"""What Kafka's error codes mean for the one who catches them: one table, by the names that librdkafka gives them.

A code that stands in no row is RetryableError: whoever retries has a deadline.
"""

from __future__ import annotations

from enum import Enum, auto
from typing import Final

from kstate.errors import ConfigError, DataLossError, FencedError, KstateError, RetryableError
from kstate.plan import TopicPartition


class Meaning(Enum):
    """What the catcher must do."""

    FENCED = auto()
    DATA_LOSS = auto()
    CONFIG = auto()
    RETRY = auto()


_ACCESS: Final = "grant it to this user (ACLs)."
_NAME: Final = "create it, or correct the name in the job or the settings."
_PROPERTY: Final = "correct the client properties (librdkafka's CONFIGURATION.md lists them)."
_NO_MORE: Final = "restore the topic from a copy, or start the job anew under another application name."
_LOGIN: Final = "check security.protocol, user and password in the client properties."

_CONFIG_MENDS: Final[dict[str, str]] = {
    "TOPIC_AUTHORIZATION_FAILED": _ACCESS,
    "CLUSTER_AUTHORIZATION_FAILED": _ACCESS,
    "TRANSACTIONAL_ID_AUTHORIZATION_FAILED": _ACCESS,
    "DELEGATION_TOKEN_AUTHORIZATION_FAILED": _ACCESS,
    "SASL_AUTHENTICATION_FAILED": _LOGIN,
    "UNSUPPORTED_SASL_MECHANISM": _LOGIN,
    "ILLEGAL_SASL_STATE": _LOGIN,
    "SECURITY_DISABLED": _LOGIN,
    "_AUTHENTICATION": _LOGIN,
    "UNKNOWN_TOPIC_OR_PART": _NAME,
    "UNKNOWN_TOPIC_ID": _NAME,
    "_UNKNOWN_TOPIC": _NAME,
    "_UNKNOWN_PARTITION": _NAME,
    "TOPIC_EXCEPTION": "Kafka allows letters, digits, '.', '_' and '-', 249 at most.",
    "INVALID_PARTITIONS": "choose at least one partition.",
    "INVALID_REPLICATION_FACTOR": "the cluster has fewer brokers than copies are asked for: lower the replication.",
    "INVALID_CONFIG": "correct the topic's configuration.",
    "POLICY_VIOLATION": "the cluster's policy refuses it: ask its administrators.",
    "INVALID_TRANSACTION_TIMEOUT": "lower failure.transaction_timeout_ms to the broker's transaction.max.timeout.ms.",
    "MSG_SIZE_TOO_LARGE": "make the record smaller, or raise max.message.bytes of the topic.",
    "RECORD_LIST_TOO_LARGE": "make the record smaller, or raise segment.bytes of the topic.",
    "INVALID_RECORD": "the topic's policy refuses the record (compacted topics need keys).",
    "INVALID_TIMESTAMP": "raise the topic's limits of message.timestamp.before.max.ms and after.max.ms.",
    "UNSUPPORTED_VERSION": "use Apache Kafka 3.0 or newer.",
    "UNSUPPORTED_FOR_MESSAGE_FORMAT": "use Apache Kafka 3.0 or newer.",
    "_UNSUPPORTED_FEATURE": "use Apache Kafka 3.0 or newer.",
    "_INVALID_ARG": _PROPERTY,
    "_NOT_IMPLEMENTED": _PROPERTY,
}

_FENCED: Final = frozenset({"_FENCED", "PRODUCER_FENCED", "INVALID_PRODUCER_EPOCH"})

_DATA_LOSS: Final = frozenset(
    {"_AUTO_OFFSET_RESET", "OFFSET_OUT_OF_RANGE", "_LOG_TRUNCATION", "_BAD_MSG", "_BAD_COMPRESSION", "INVALID_MSG"}
)

NOT_THERE: Final = frozenset({"UNKNOWN_TOPIC_OR_PART", "UNKNOWN_TOPIC_ID", "_UNKNOWN_TOPIC", "_UNKNOWN_PARTITION"})
"""Codes of a topic or partition that does not exist, or is so new that not every broker knows it."""

SETTLING: Final = frozenset(
    {
        "NOT_LEADER_FOR_PARTITION",
        "LEADER_NOT_AVAILABLE",
        "FENCED_LEADER_EPOCH",
        "UNKNOWN_LEADER_EPOCH",
        "OFFSET_NOT_AVAILABLE",
        "REPLICA_NOT_AVAILABLE",
        "KAFKA_STORAGE_ERROR",
        "NOT_CONTROLLER",
        "BROKER_NOT_AVAILABLE",
        "REQUEST_TIMED_OUT",
        "NETWORK_EXCEPTION",
        "_NOENT",
        "_TRANSPORT",
    }
)
"""Codes of a cluster that is electing, starting or learning: the same question is answered a moment later."""


def meaning(code: str) -> Meaning:
    """What a code asks for."""
    if code in _FENCED:
        return Meaning.FENCED
    if code in _DATA_LOSS:
        return Meaning.DATA_LOSS
    return Meaning.CONFIG if code in _CONFIG_MENDS else Meaning.RETRY


def translated(code: str, text: str, doing: str) -> KstateError:
    """Our own error for a code of Kafka; `doing` says which thing was at hand: "reading orders[3]"."""
    message = f"{doing}: {text} ({code})."
    match meaning(code):
        case Meaning.FENCED:
            return FencedError(message)
        case Meaning.DATA_LOSS:
            return DataLossError(message, hint=_NO_MORE)
        case Meaning.CONFIG:
            return ConfigError(message, hint=_CONFIG_MENDS[code])
        case Meaning.RETRY:
            return RetryableError(message)


def unreachable(servers: str, doing: str, trouble: str = "") -> RetryableError:
    """Nobody answers; `trouble` is what the client itself says about it."""
    said = f" The client says: {trouble}." if trouble else ""
    return RetryableError(
        f"{doing}: no answer from Kafka at {servers}.{said}",
        hint="is the broker up, and are address, security.protocol and login right? The call may be tried again.",
    )


def unknown_partition(source: TopicPartition, count: int | None) -> ConfigError:
    """A topic or partition that does not exist; `count` is the topic's number of partitions, None without the topic."""
    there = "the topic does not exist" if count is None else f"the topic has {count} partitions"
    return ConfigError(f"{source}: {there}.", hint=_NAME)


def out_of_range(source: TopicPartition, position: int, start: int | None, end: int | None) -> DataLossError:
    """A position outside the log; `start` and `end` are None where they could not be asked."""
    if start is None or end is None:
        what = "the broker says that it is not in the log"
    elif start <= position <= end:
        what = f"that was in an earlier topic of this name; the log is [{start}, {end}) now"
    else:
        what = f"the log is [{start}, {end})"
    return DataLossError(
        f"{source}: offset {position} is to be read, but {what}.",
        hint=f"the records were deleted (retention) or the topic was made anew: {_NO_MORE}",
    )


def oversize(topic: str, size: int, limit: int) -> ConfigError:
    """A message larger than the client's limit."""
    return ConfigError(
        f"A message of {size} bytes for topic {topic!r} is larger than message.max.bytes = {limit}.",
        hint="make the record smaller, or raise message.max.bytes of the client and max.message.bytes of the topic.",
    )
