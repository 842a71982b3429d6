"""Errors, named by what the one who catches them must do.

    KstateError
    ├── ConfigError          fix the job, the settings or the cluster; the process exits with code 2
    ├── OperatorError        user code failed too often or cannot go on; exits with code 3, is not restarted
    ├── FencedError          another incarnation owns this identity: stop at once, never retry
    ├── RetryableError       same owner may try again, within a deadline
    │   └── TaintedError     the outcome of a transaction is unknown: re-open and look (rule S4)
    ├── CorruptStateError    the local copy is damaged: drop it and restore from the backup
    ├── BackupLogError       the backup topic itself is torn, corrupt or has a hole: refuse (rule S5)
    ├── DataLossError        records we still need are gone from a topic: refuse, never skip
    └── DecodeError          bytes that are not what they should be: policy decides (dead-letter topic)

A message says which thing, what was expected and what to do; `hint` carries the mend.
"""

from collections.abc import Iterable


class KstateError(Exception):
    """Base of every error that kstate raises on purpose; `hint` says how to mend it."""

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(f"{message} Mend: {hint}" if hint else message)
        self.what = message
        """The message without the mend."""
        self.hint = hint


class ConfigError(KstateError):
    """The job, its settings or the cluster's set-up is wrong; nothing is processed until it is mended."""

    exit_code = 2


class OperatorError(KstateError):
    """User code failed in a way that must stop the job; the message names operator, key, topic-partition and offset."""

    exit_code = 3


class FencedError(KstateError):
    """Somebody else took over this identity (Kafka fencing or a death decision): stop, never retry."""

    exit_code = 4


class RetryableError(KstateError):
    """A broker or network trouble that the same owner may retry within a deadline."""

    exit_code = 5


class TaintedError(RetryableError):
    """The outcome of a transaction is unknown, its producer must be discarded (rule S4)."""


class CorruptStateError(KstateError):
    """The local store is damaged, foreign or stale: it is wiped and restored from the backup."""

    exit_code = 6


class BackupLogError(KstateError):
    """A block or marker of the backup topic is corrupt, torn or missing; names partition and offset (rule S5)."""

    exit_code = 7


class DataLossError(KstateError):
    """Records that are still needed are gone from a topic (retention, truncation, re-creation): refuse, never skip."""

    exit_code = 8


class DecodeError(KstateError):
    """Bytes do not decode as the schema says; the policy of the place decides what happens."""


FINAL_EXIT_CODES = frozenset(kind.exit_code for kind in (ConfigError, OperatorError, BackupLogError, DataLossError))
"""Exit codes after which starting the process again would change nothing: people must mend something first."""


def numbered(faults: Iterable[object]) -> str:
    """Faults as a message lists them: each on a line of its own, with its number."""
    return "".join(f"\n  {number}. {fault}" for number, fault in enumerate(faults, 1))
