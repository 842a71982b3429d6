"""The log in memory: the contract, and what a simulation can make of it."""

from __future__ import annotations

import pytest

from kstate.clock import SystemClock
from kstate.testing.memory_log import MemoryLog
from tests.contract.log_contract import DeleteBefore, DeleteTopic, LogContract


class TestMemoryLog(LogContract):
    """The contract over the model."""

    @pytest.fixture
    def log(self) -> MemoryLog:
        """Markers arrive at once."""
        return MemoryLog(SystemClock())

    @pytest.fixture
    def delete_before(self, log: MemoryLog) -> DeleteBefore:
        """DeleteRecords."""
        return lambda source, offset: log.delete_records({source: offset})

    @pytest.fixture
    def delete_topic(self, log: MemoryLog) -> DeleteTopic:
        """Somebody deletes a topic."""
        return log.delete_topic
