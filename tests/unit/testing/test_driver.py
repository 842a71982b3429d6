"""The driver itself: what it promises to tests of operators."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from kstate import ConfigError, Context, Input, Job, Operator, OperatorError, Output, Reject, ValueState
from kstate.testing import Driver


@dataclass(frozen=True, slots=True)
class Deposit:
    """Money for an account."""

    account: str
    amount: int


@dataclass(frozen=True, slots=True)
class Balance:
    """What an account holds after a deposit."""

    account: str
    amount: int
    at: int


class Bank(Operator[str], uid="bank"):
    """Adds up; negative amounts are rejected, zero is a bug."""

    deposits = Input(Deposit, topic="deposits", key="account")
    balances = Output(Balance, topic="balances")
    total = ValueState(int, default=0)
    last = ValueState(Deposit)

    @deposits.each
    def add(self, deposit: Deposit, ctx: Context) -> None:
        self.total.set(self.total.get() + deposit.amount)
        self.last.set(deposit)
        if deposit.amount < 0:
            raise Reject("negative")
        if deposit.amount == 0:
            raise ZeroDivisionError("a bug")
        self.balances.emit(Balance(self.key, self.total.get(), ctx.event_time))


class Imported(Bank, uid="imported"):
    """Deposits that librdkafka's own partitioner placed."""

    deposits = Input(Deposit, topic="imports", key="account", partitioner="crc32")
    balances = Output(Balance, topic="import-balances")
    deposits.each(Bank.add)


class Stray(Operator[str], uid="stray"):
    """Not in the job."""

    deposits = Input(Deposit, topic="deposits")
    out = Output(Balance, topic="elsewhere")

    @deposits.each
    def add(self, deposit: Deposit, ctx: Context) -> None:
        """Does nothing."""


JOB = Job("driven", [Bank])


def test_results_are_read_once_and_in_order() -> None:
    """`read` returns what was committed since the last `read`."""
    with Driver(JOB) as d:
        d.send(Bank.deposits, Deposit("a", 1), Deposit("b", 5), Deposit("a", 2))
        assert [(b.account, b.amount) for b in d.read(Bank.balances)] == [("a", 1), ("b", 5), ("a", 3)]
        assert d.read(Bank.balances) == []
        d.send(Bank.deposits, Deposit("b", 1))
        assert [(b.account, b.amount) for b in d.read(Bank.balances)] == [("b", 6)]


def test_state_is_read_by_key() -> None:
    """A state without default reads as None where there is nothing."""
    with Driver(JOB, workers=3) as d:
        d.send(Bank.deposits, *(Deposit(f"account {n}", n) for n in range(1, 20)))
        assert [d.state(Bank.total, key=f"account {n}") for n in range(1, 20)] == list(range(1, 20))
        assert d.state(Bank.last, key="account 7") == Deposit("account 7", 7)
        assert d.state(Bank.last, key="nobody") is None


def test_records_are_placed_as_the_input_expects_them() -> None:
    """By the partitioner that it names; state is looked for in the same place."""
    names = [f"account-{number}" for number in range(8)]
    with Driver(Job("imports", [Imported]), workers=2) as d:
        d.send(Imported.deposits, *(Deposit(name, 5) for name in names))
        assert [d.state(Imported.total, key=name) for name in names] == [5] * 8


def test_time_passes_only_when_the_test_says_so() -> None:
    """An hour costs nothing, and records sent after it are an hour younger."""
    with Driver(JOB) as d:
        d.send(Bank.deposits, Deposit("a", 1))
        d.advance(timedelta(hours=1))
        d.send(Bank.deposits, Deposit("a", 1))
        before, after = (balance.at for balance in d.read(Bank.balances))
        assert 3_600_000 <= after - before < 3_610_000


def test_wiring_mistakes_come_out_where_the_driver_is_made() -> None:
    """A ConfigError that lists them."""
    with pytest.raises(ConfigError, match="no operators"):
        Driver(Job("empty", []))


def test_dead_letters_are_for_the_test_to_look_at() -> None:
    """They carry reason, place and original bytes, and the failed call left nothing behind."""
    with Driver(JOB) as d:
        d.send(Bank.deposits, Deposit("a", 3), Deposit("a", -2), Deposit("a", 0))
        rejected, failed = d.dead_letters(Bank)
        assert (rejected.reason, rejected.error, rejected.topic, rejected.offset) == (
            "negative",
            "Reject",
            "deposits",
            1,
        )
        assert (failed.reason, failed.error, failed.key) == ("a bug", "ZeroDivisionError", b"a")
        assert d.state(Bank.total, key="a") == 3
        assert len(d.read(Bank.balances)) == 1


def test_a_dead_letter_that_nobody_looked_at_fails_the_test() -> None:
    """Otherwise a bug in a handler would read as "nothing came out"."""
    with (
        pytest.raises(
            OperatorError,
            match=r"operator 'bank' that nobody.*: 1, the first of deposits\[0\]@0 with ZeroDivisionError: a bug",
        ),
        Driver(JOB) as d,
    ):
        d.send(Bank.deposits, Deposit("a", 0))


def test_an_error_that_stops_the_job_comes_out_of_send() -> None:
    """More than a tenth, and at least a hundred, failing records of an epoch are a bug."""
    with pytest.raises(OperatorError, match="100 of 100 records of one epoch failed"), Driver(JOB) as d:
        d.send(Bank.deposits, *[Deposit("a", 0)] * 100)


def test_a_crash_that_is_never_reached_fails_the_test() -> None:
    """A test that believes it survived a crash must have had one."""
    with pytest.raises(AssertionError, match="worker-0 at 'after_commit'"), Driver(JOB) as d:
        d.crash(at="after_commit")


def test_a_crash_hits_the_step_that_was_named() -> None:
    """The epoch that was not committed is done again by the next incarnation, the committed one is not."""
    for point, incarnations in (("before_commit", 2), ("after_commit", 2), ("now", 2)):
        with Driver(JOB) as d:
            d.send(Bank.deposits, Deposit("a", 1))
            d.crash(at=point)
            d.send(Bank.deposits, Deposit("a", 1), Deposit("a", 1))
            assert [balance.amount for balance in d.read(Bank.balances)] == [1, 2, 3]
            assert len([p for p in d._world.processes if p.name == "worker-0"]) == incarnations


def test_unknown_workers_steps_and_operators_are_refused() -> None:
    """By name, with what there is instead."""
    with Driver(JOB) as d:
        with pytest.raises(ConfigError, match="There is no worker 1"):
            d.crash(1)
        with pytest.raises(ConfigError, match=r"'before_comit'.*before_commit"):
            d.crash(at="before_comit")
        with pytest.raises(ConfigError, match="Stray is no operator of job 'driven'"):
            d.read(Stray.out)


def test_a_keyed_input_needs_a_key() -> None:
    """Unless it names the field that holds it."""

    class Loose(Operator[str], uid="loose"):
        deposits = Input(Deposit, topic="deposits")
        seen = ValueState(int, default=0)

        @deposits.each
        def count(self, deposit: Deposit, ctx: Context) -> None:
            self.seen.set(self.seen.get() + 1)

    with Driver(Job("loose", [Loose])) as d:
        with pytest.raises(ConfigError, match="has no key"):
            d.send(Loose.deposits, Deposit("a", 1))
        d.send(Loose.deposits, Deposit("a", 1), key="k")
        assert (d.state(Loose.seen, key="k"), d.state(Loose.seen, key="a")) == (1, 0)
