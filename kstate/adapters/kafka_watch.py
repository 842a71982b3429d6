"""What a Kafka client says about itself: rule S4's eyes.

librdkafka repeats the request that ends a transaction when a connection breaks or an answer is late, and says so only
in its log. A repeated one may hit the next transaction, so whatever the log tells of a broken or slow connection
taints.
"""

from __future__ import annotations

import logging
import re
import time
from typing import Final, Protocol

from kstate.adapters.kafka_errors import Meaning, meaning, translated, unreachable
from kstate.adapters.kafka_settings import scrubbed
from kstate.config import Settings
from kstate.errors import FencedError, KstateError

_LOGGER: Final = logging.getLogger("kstate.kafka")

_DEBUG_READ: Final = frozenset({"FAIL", "METADATA"})
"""Facilities of debug lines that are looked at."""

_HARMLESS: Final = frozenset({"PARTCNT", "COMPRESSION", "CONFWARN", "CERTSTORE", "GETPID"})
"""Facilities of log lines, above debug, that tell nothing about requests under way: partitions were added to a topic, a
batch went uncompressed, remarks on the configuration, a producer id was waited for."""

_PASSED_OVER: Final = "error log suppressed"
"""In the debug line of a closed connection that gets no line of its own, for being identical to an earlier one."""

_TRANSACTION_ERROR: Final = re.compile(r"\((_?[A-Z][A-Z_]+)(?:, requires epoch bump)?\)$")
"""The code at the end of a line of the facility TXNERR."""

_TOPIC_ID: Final = re.compile(r"Topic (\S+) changed id from \S+ to (\S+)")
"""A debug line about a topic whose id is news to the client: at first, and when it was made anew."""

_SILENCE: Final = frozenset({"_TIMED_OUT", "_TRANSPORT", "_ALL_BROKERS_DOWN", "_RESOLVE"})
"""Codes of a broker that does not answer."""

_TROUBLES_KEPT: Final = 20

_BROKEN_SHOWN_EVERY_S: Final = 10.0
"""While a broker is away each client tells of ten broken connections a second: people are shown one in this time."""


class _Shown:
    """When a broken connection was shown last, by any client of this process (monotonic seconds)."""

    at = float("-inf")


def _is_news(facility: str) -> bool:
    """Whether people should see a line of this facility now."""
    if facility != "FAIL":
        return facility not in _HARMLESS
    if (now := time.monotonic()) < _Shown.at + _BROKEN_SHOWN_EVERY_S:
        return False
    _Shown.at = now
    return True


class ClientError(Protocol):
    """What is used of the client's error objects."""

    def name(self) -> str: ...

    def str(self) -> str: ...


class ClientCallError(Exception):
    """An error of the client, told apart from its library: librdkafka's name of the code, and its text."""

    def __init__(self, code: str, text: str) -> None:
        super().__init__(f"{text} ({code})")
        self.code = code
        self.text = text


class ClientWatch:
    """Logger and error callback of one client; collects `troubles` until `clear`, the other facts stay."""

    def __init__(self, settings: Settings) -> None:
        self.troubles: list[str] = []
        self.fenced = False
        self.refusal: tuple[str, str] | None = None
        """Code and text of the first error that only people can mend."""
        self.made_anew: set[str] = set()
        """Topics that were deleted and made again while the client read them."""
        self._topic_ids: dict[str, str] = {}
        self._settings = settings

    def scrubbed(self, text: str) -> str:
        """A text of this client, fit to be shown."""
        return scrubbed(text, self._settings.client)

    def log(self, level: int, message: str, *args: object) -> None:
        """A line of the client's log; the first argument is its facility, "FAIL" for a closed connection."""
        facility = args[0] if args else ""
        if level < logging.INFO and facility not in _DEBUG_READ:
            return
        text = self.scrubbed(message % args)
        if level >= logging.INFO:
            _LOGGER.log(level if _is_news(str(facility)) else logging.DEBUG, "%s", text)
        if facility == "TXNERR" and (code := _TRANSACTION_ERROR.search(text)):
            self._judge(code[1], text)
        if found := _TOPIC_ID.search(text):
            self._name_topic(found[1], found[2])
        if _PASSED_OVER in text or (level >= logging.INFO and facility not in _HARMLESS):
            self._add(text)

    def error(self, error: ClientError) -> None:
        """The client's error callback."""
        self.note(ClientCallError(error.name(), error.str()))

    def note(self, fault: ClientCallError) -> None:
        """An error the client told of, in whatever way."""
        text = self.scrubbed(fault.text)
        self._judge(fault.code, text)
        self._add(f"{text} ({fault.code})")

    def judged(self, fault: ClientCallError, doing: str) -> KstateError:
        """Our own error for one of the client's, in the light of what was seen; `doing` says what was at hand."""
        self._judge(fault.code, text := self.scrubbed(fault.text))
        if self.fenced:
            return FencedError(f"{doing}: {text} ({fault.code}).")
        if self.refusal:
            return translated(*self.refusal, doing)
        if fault.code in _SILENCE:
            return unreachable(self._settings.bootstrap_servers, doing, self.trouble)
        return translated(fault.code, text, doing)

    def clear(self) -> None:
        """Forget what was seen before a producer is opened: it has no transaction yet."""
        self.troubles.clear()

    @property
    def trouble(self) -> str:
        """The last thing seen, "" for nothing."""
        return self.troubles[-1] if self.troubles else ""

    def _name_topic(self, topic: str, topic_id: str) -> None:
        if self._topic_ids.setdefault(topic, topic_id) != topic_id:
            self.made_anew.add(topic)
            self._topic_ids[topic] = topic_id

    def _judge(self, code: str, text: str) -> None:
        match meaning(code):
            case Meaning.FENCED:
                self.fenced = True
            case Meaning.CONFIG:
                self.refusal = self.refusal or (code, text)
            case Meaning.DATA_LOSS | Meaning.RETRY:
                pass

    def _add(self, text: str) -> None:
        self.troubles.append(text)
        del self.troubles[:-_TROUBLES_KEPT]
