"""Versions of a job one after the other, on real workers and leaders over the log in memory."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from datetime import timedelta
from random import Random
from typing import Any

import pytest

from kstate import ConfigError, Context, Input, Job, Operator, Output, ValueState
from kstate.interfaces import TopicSpec
from kstate.keyspace import FULL_RANGE
from kstate.messages import PlanPublished
from kstate.plan import Member, Plan, Registry, Shard, Tile, TopicPartition, tiling_fault
from kstate.wire import encode_control
from tests.support.versions import CODECS, Deployment

EPOCH = timedelta(milliseconds=50)
ACCOUNTS = ("x1", "x2", "x4", "x6", "y7", "z9")


@dataclass(frozen=True, slots=True)
class Payment:
    id: int
    amount: int


@dataclass(frozen=True, slots=True)
class Balance:
    account: str
    payment: int
    total: int


@dataclass(frozen=True, slots=True)
class Account:
    """As version 1 keeps it."""

    total: int
    count: int


@dataclass(frozen=True, slots=True)
class Standing:
    """As version 2 keeps it: renamed, in another order, and it knows a currency and a limit."""

    count: int
    total: int
    currency: str = "EUR"
    limit: float | None = None


@dataclass(frozen=True, slots=True)
class Note:
    text: str


def version_1() -> Job:
    """Balances; what it notes nobody needs."""

    class Accounts(Operator[str], uid="accounts"):
        payments = Input(Payment, topic="payments")
        balances = Output(Balance, topic="balances")
        account = ValueState(Account, default=Account(0, 0))
        last = ValueState(int, default=0)
        scribble = ValueState(str)

        @payments.each
        def add(self, payment: Payment, ctx: Context) -> None:
            before = self.account.get()
            self.account.set(Account(before.total + payment.amount, before.count + 1))
            self.last.set(payment.id)
            self.scribble.set("v1")
            self.balances.emit(Balance(self.key, payment.id, self.account.get().total))

    return Job("bank", [Accounts], epoch=EPOCH)


def version_2(*, dropped: tuple[str, ...] = ("accounts.scribble",)) -> Job:
    """An evolved state, a renamed one, one dropped and one new, a further input, and a new operator behind a stream."""

    class Accounts(Operator[str], uid="accounts"):
        payments = Input(Payment, topic="payments")
        refunds = Input(Payment, topic="refunds")
        balances = Output(Balance, topic="balances")
        notes = Output(Note, key=lambda note: note.text)
        standing = ValueState(Standing, default=Standing(0, 0), name="account")
        newest = ValueState(int, default=0, name="last")
        refunded = ValueState(int, default=0)

        @payments.each
        def add(self, payment: Payment, ctx: Context) -> None:
            self.change(payment.id, payment.amount)

        @refunds.each
        def refund(self, refund: Payment, ctx: Context) -> None:
            self.refunded.set(self.refunded.get() + refund.amount)
            self.change(refund.id, -refund.amount)

        def change(self, number: int, amount: int) -> None:
            before = self.standing.get()
            self.standing.set(Standing(before.count + 1, before.total + amount, before.currency, before.limit))
            self.notes.emit(Note(f"{self.newest.get()} before {number}"))
            self.newest.set(number)
            self.balances.emit(Balance(self.key, number, before.total + amount))

    class Audit(Operator[str], uid="audit"):
        notes = Input(Accounts.notes)
        audits = Output(Note, topic="audits")

        @notes.each
        def pass_on(self, note: Note, ctx: Context) -> None:
            self.audits.emit(note)

    return Job("bank", [Accounts, Audit], epoch=EPOCH, dropped=dropped)


class Bank:
    """What was paid, and what must have come of it."""

    def __init__(self, workers: int = 2) -> None:
        self.at = Deployment(["payments", "refunds", "balances", "audits"], workers=workers)
        self.sent: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.newest = ""
        self._rng = Random(7)
        self._number = 0

    def pay(self, count: int) -> None:
        """Payments to random accounts."""
        for _ in range(count):
            self._number += 1
            account, amount = self._rng.choice(ACCOUNTS), self._rng.randint(1, 99)
            self.at.send("payments", account, Payment(self._number, amount))
            self.sent[account].append((self._number, amount))
            self.newest = account

    def check(self) -> None:
        """Every payment is in one balance, in order, on the total of all before it: nothing lost, nothing doubled."""
        got: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for balance in self.at.read("balances", Balance):
            got[balance.account].append((balance.payment, balance.total))
        expected: dict[str, list[tuple[int, int]]] = {}
        for account, payments in self.sent.items():
            total, expected[account] = 0, []
            for number, amount in payments:
                total += amount
                expected[account].append((number, total))
        assert got == expected


def test_a_new_version_goes_on_from_the_state_of_the_old_one() -> None:
    """Stopped as version 1, started as version 2: state is read through its new schema, rewritten when it is set, found
    under its old name, begun anew or gone; the added input starts at its beginning, the new operator gets its stream.
    """
    bank = Bank()
    at, one, two = bank.at, bank.at.version(version_1()), bank.at.version(version_2())
    at.start(one, "leader", "worker-1", "worker-2")
    bank.pay(60)
    at.settle()
    at.stop("leader", "worker-1", "worker-2")
    before = at.plan()
    untouched = "q5"
    at.send("refunds", untouched, Payment(1_000, 5))
    bank.sent[untouched].append((1_000, -5))
    at.start(two, "leader", "worker-1", "worker-2")
    at.settle()
    assert at.stored("accounts", "account", "x1") == (
        1, CODECS.value(Account).encode(Account(*_totals(bank, "x1")))
    )  # fmt: skip
    bank.pay(60)
    at.settle()
    bank.check()
    plan = at.plan()
    schema, payload = at.stored("accounts", "account", "x1") or (0, b"")
    assert plan.registry.schemas[schema] == CODECS.value(Standing).schema
    total, number = _totals(bank, "x1")
    assert CODECS.value(Standing).decode(payload) == Standing(number, total, "EUR", None)
    assert plan.registry.states["accounts", "last"] == before.registry.states["accounts", "last"]
    assert plan.registry.retired == (("accounts", "scribble", 3),)
    assert plan.registry.written["accounts", "account"] == (1, schema)
    assert at.stored("accounts", "refunded", untouched) is not None
    last_of_v1 = {
        account: max(n for n, _ in sent if n <= 60) for account, sent in bank.sent.items() if sent[0][0] <= 60
    }
    notes = {note.text for note in at.read("audits", Note)}
    assert {f"{n} before" for n in last_of_v1.values()} <= {text.rpartition(" ")[0] for text in notes}
    assert len(notes) == 61
    assert "state 'account' of 'accounts' has a new schema" in at.reasons()[-1] + at.reasons()[-2]


def _totals(bank: Bank, account: str) -> tuple[int, int]:
    return sum(amount for _, amount in bank.sent[account]), len(bank.sent[account])


def test_workers_are_replaced_one_by_one_while_the_job_runs() -> None:
    """A leader of version 2 and then its workers, payments all the time: nothing lost, nothing doubled, and no tile of
    a new worker ever goes to an old one.
    """
    bank = Bank()
    at, one, two = bank.at, bank.at.version(version_1()), bank.at.version(version_2())
    at.start(one, "leader", "worker-1", "worker-2")
    bank.pay(30)
    at.settle()
    bank.pay(10)
    at.stop("leader")
    at.start(two, "leader")
    bank.pay(10)
    at.until(lambda: at.plan().build == two.build, "plan of version 2")
    owners = at.owners()
    assert (owners["worker-1"], owners["worker-2"]) == (1, 1), "old workers keep what they run"
    assert owners["nobody"] == 2, "the new operator waits for a worker that knows it"
    bank.pay(30)
    at.run(1.0)
    assert sum(len(sent) for sent in bank.sent.values()) == len(at.read("balances", Balance)), "version 1 works on"
    for name in ("worker-1", "worker-2"):
        bank.pay(10)
        at.stop(name)
        bank.pay(10)
        at.start(two, name)
        bank.pay(10)
        at.run(1.0)
    at.settle()
    bank.check()
    assert {member.build for member in at.plan().members} == {two.build}
    assert any("superseded" in line and "keeps what it owns" in line for line in at.told.lines)
    assert not at.halts()


def test_an_old_worker_waits_and_its_tiles_wait_for_a_new_one() -> None:
    """The leader is of version 2 and the only worker starts again as version 1: it lives, owns nothing, and both say
    why; a worker of version 2 gets the tiles and goes on.
    """
    bank = Bank(workers=1)
    at, one, two = bank.at, bank.at.version(version_1()), bank.at.version(version_2())
    at.start(one, "leader", "worker-1")
    bank.pay(10)
    at.settle()
    at.stop("leader")
    at.start(two, "leader")
    at.until(lambda: at.plan().build == two.build, "plan of version 2")
    at.stop("worker-1")
    at.start(one, "worker-1")
    bank.pay(10)
    at.run(5.0)
    assert any(process.name == "worker-1" for process in at.world.running())
    assert len(at.read("balances", Balance)) == 10
    told = "\n".join(at.told.lines)
    assert f"waiting the leader runs build {two.build}, this worker {one.build}: this worker gets no tiles" in told
    assert f"the leader runs build {two.build}, not so worker-1 (build {one.build}): 4 tiles without owner wait" in told
    at.start(two, "worker-2")
    at.settle()
    bank.check()
    at.stop("worker-1")


def test_a_killed_new_worker_is_not_followed_by_an_old_one() -> None:
    """Both builds run; the new one dies and starts again: its tiles wait for it, whatever the old one could do."""
    bank = Bank()
    at, one, two = bank.at, bank.at.version(version_1()), bank.at.version(version_2())
    at.start(one, "leader", "worker-1", "worker-2")
    bank.pay(20)
    at.settle()
    at.stop("leader", "worker-1")
    at.start(two, "leader", "worker-1")
    at.settle()
    bank.pay(20)
    at.crash("worker-1")
    bank.pay(20)
    at.settle()
    bank.check()
    assert at.owners()["worker-1"] == 3
    assert at.owners()["worker-2"] == 1


def test_a_version_that_does_not_continue_disturbs_nobody() -> None:
    """It is refused before it takes the leader's id: version 1 goes on, its leader too, and nothing is halted."""
    bank = Bank()
    at, one, bad = bank.at, bank.at.version(version_1()), bank.at.version(version_2(dropped=()))
    at.start(one, "leader-1", "worker-1", "worker-2")
    bank.pay(20)
    at.settle()
    at.start(bad, "leader-2")
    at.until(lambda: at.result("leader-2") is not None, "refusal")
    refused = at.result("leader-2")
    assert isinstance(refused, ConfigError)
    assert "state 'scribble' of operator 'accounts' vanished" in str(refused)
    at.stop("leader-1")
    at.start(bad, "leader-3")
    bank.pay(20)
    at.until(lambda: at.result("leader-3") is not None, "second refusal")
    at.run(1.0)
    bank.check()
    assert (at.halts(), {plan.build for plan in at.plans}) == ([], {one.build})
    at.start(one, "leader-4")
    at.crash("worker-1")
    bank.pay(20)
    at.run(3.0)
    at.settle()
    bank.check()


def test_going_back_gives_dropped_state_a_new_id_and_old_workers_start_again() -> None:
    """A leader in between drops a state, the next one has it again: a worker that ran all the time holds the old id,
    which is not to be written any more.
    """
    bank = Bank()
    at, one = bank.at, bank.at.version(version_1())
    between = at.version(without_scribble())
    at.start(one, "leader", "worker-1", "worker-2")
    bank.pay(20)
    at.settle()
    at.stop("leader")
    at.start(between, "leader")
    at.until(lambda: at.plan().build == between.build, "plan of the version between")
    bank.pay(20)
    at.run(1.0)
    at.stop("leader")
    at.start(one, "leader")
    at.until(lambda: at.plan().build == one.build, "plan of version 1")
    bank.pay(20)
    at.run(2.0)
    at.settle()
    bank.check()
    plan = at.plan()
    assert plan.registry.states["accounts", "scribble"] == 4
    assert plan.registry.retired == (("accounts", "scribble", 3),)
    assert at.stored("accounts", "scribble", bank.newest) is not None, "the new workers write under the new id"
    assert any("gives other ids to this worker's state" in line for line in at.told.lines)


def test_a_worker_that_finds_only_plans_of_another_build_does_not_guess() -> None:
    """Control was trimmed behind a plan of another build that repeats its tile: it starts again and waits."""
    at = Bank(workers=1).at
    one = at.version(version_1())
    member, tile = Member("worker-1", "worker-1.1", one.build), Tile(Shard("accounts", 0), FULL_RANGE, "worker-1.1", 1)
    other = Tile(Shard("accounts", 1), FULL_RANGE, None, 1)
    registry = Registry({"accounts": 7}, {("accounts", "account"): 7})
    plan = Plan("bank", 2, 1, (member,), (), (tile, other), registry, {}, {}, build="of another")
    at.world.log.create_topics([TopicSpec("bank.control", 1), TopicSpec("bank.reports", 1)])
    control = at.world.log.partition(TopicPartition("bank.control", 0))
    control.append({"value": encode_control(PlanPublished(plan)), "partition": 0}, 0, None)
    at.start(one, "worker-1")
    at.run(2.0)
    assert any("Plan 2 is of build of another, and the one that granted accounts[0]" in line for line in at.told.lines)
    assert [process.incarnation for process in at.world.running()] == ["worker-1.2"]


def without_scribble() -> Job:
    """Version 1 but for what it notes."""

    class Accounts(Operator[str], uid="accounts"):
        payments = Input(Payment, topic="payments")
        balances = Output(Balance, topic="balances")
        account = ValueState(Account, default=Account(0, 0))
        last = ValueState(int, default=0)

        @payments.each
        def add(self, payment: Payment, ctx: Context) -> None:
            raise AssertionError("no worker runs it")

    return Job("bank", [Accounts], epoch=EPOCH, dropped=["accounts.scribble"])


def test_a_version_whose_topics_are_missing_halts_nobody() -> None:
    """The fault is found after it took the leader's id; the workers of version 1 go on without a leader."""
    bank = Bank()
    at, one, two = bank.at, bank.at.version(version_1()), bank.at.version(version_2())
    at.start(one, "leader", "worker-1", "worker-2")
    bank.pay(10)
    at.settle()
    at.world.log.delete_topic("refunds")
    at.stop("leader")
    at.start(two, "leader")
    at.until(lambda: at.result("leader") is not None, "refusal")
    assert "topic 'refunds' does not exist; create it" in str(at.result("leader"))
    bank.pay(10)
    at.run(1.0)
    bank.check()
    assert (at.halts(), at.plan().build) == ([], one.build)


def version_3() -> Job:
    """Without the audit, and without its stream and the refunds."""

    class Accounts(Operator[str], uid="accounts"):
        payments = Input(Payment, topic="payments")
        balances = Output(Balance, topic="balances")
        standing = ValueState(Standing, default=Standing(0, 0), name="account")

        @payments.each
        def add(self, payment: Payment, ctx: Context) -> None:
            before = self.standing.get()
            self.standing.set(Standing(before.count + 1, before.total + payment.amount))
            self.balances.emit(Balance(self.key, payment.id, before.total + payment.amount))

    return Job("bank", [Accounts], epoch=EPOCH, dropped=("audit", "accounts.last", "accounts.refunded"))


def test_a_dropped_operator_runs_until_its_workers_stop() -> None:
    """Old workers keep its tiles; as they stop these leave the plan, the others go on under the new version."""
    bank = Bank()
    at, two, three = bank.at, bank.at.version(version_2()), bank.at.version(version_3())
    at.start(two, "leader", "worker-1", "worker-2")
    bank.pay(20)
    at.settle()
    at.stop("leader")
    at.start(three, "leader")
    at.until(lambda: at.plan().build == three.build, "plan of version 3")
    assert sum(at.owners().values()) == 4
    assert at.plan().registry.operators == {"accounts": 1}
    bank.pay(20)
    at.run(1.0)
    assert len(at.read("audits", Note)) == 40, "the old workers run it still"
    for name in ("worker-1", "worker-2"):
        at.stop(name)
        at.start(three, name)
        bank.pay(10)
        at.run(1.0)
    at.settle()
    bank.check()
    plan = at.plan()
    assert {tile.shard.operator for tile in plan.tiles} == {"accounts"}
    assert tiling_fault(plan) is None
    assert {topic for _, topic, _ in plan.starts} == {"payments"}
    assert "bank.accounts.notes" not in plan.partitions
    assert any("'accounts' no longer reads topic 'refunds': its progress there is left out" in r for r in at.reasons())
    assert any("operator 'audit' is dropped; its topic bank.audit.backup stays" in r for r in at.reasons())


def test_a_dropped_operator_comes_back_only_without_its_old_records() -> None:
    """What its backup and its stream still hold must not become state again; the error names the topics."""
    bank = Bank()
    at, two, three = bank.at, bank.at.version(version_2()), bank.at.version(version_3())
    at.start(two, "leader", "worker-1", "worker-2")
    bank.pay(20)
    at.settle()
    at.stop("leader", "worker-1", "worker-2")
    at.start(three, "leader", "worker-1", "worker-2")
    at.settle()
    at.stop("leader", "worker-1", "worker-2")
    again = at.version(version_2())
    at.start(again, "leader", "worker-1")
    at.until(lambda: at.result("leader") is not None, "refusal")
    assert isinstance(at.result("leader"), ConfigError)
    for text in ("bank.accounts.notes", "bank.audit.backup", "another life or version of this job"):
        assert text in str(at.result("leader"))
    at.stop("worker-1")


@pytest.mark.parametrize("seed", range(12))
def test_a_rolling_restart_with_kills_loses_and_doubles_nothing(seed: int) -> None:
    """At random moments workers of both versions and leaders are killed, others replaced; payments all the time."""
    bank, rng = Bank(), Random(seed)
    at, one, two = bank.at, bank.at.version(version_1()), bank.at.version(version_2())
    at.start(one, "leader", "worker-1", "worker-2")
    at.until(lambda: one.plan() is not None, "the first plan")
    todo: list[Any] = ["leader", *rng.sample(["worker-1", "worker-2"], 2)]
    while todo:
        bank.pay(rng.randint(0, 8))
        at.run(rng.uniform(0.01, 0.6))
        victim = rng.choice(["leader", "worker-1", "worker-2", None])
        if victim is not None and any(process.name == victim for process in at.world.running()):
            at.crash(victim)
            at.run(rng.choice([0.0, 0.02, 0.3]))
        if rng.random() < 0.5:
            name = todo.pop(0)
            at.run(0.02)  # a supervisor starts the killed one again
            at.stop(name)
            at.start(two, name)
    bank.pay(10)
    at.until(lambda: {m.build for m in at.plan().members} == {two.build}, "members of version 2")
    at.settle()
    bank.check()
    assert not at.halts()
