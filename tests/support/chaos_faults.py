"""The kinds of faults: each is inflicted while its victim is known to stand where it is to be hit."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from kstate.keyspace import KeyRange
from tests.support.chaos_control import waited
from tests.support.chaos_events import IN_HANDLER, Blow, Mark, Phase, Role, Want
from tests.support.chaos_observer import Lost, Recovery
from tests.support.chaos_stage import Outcome, Stage
from tests.support.chaos_troupe import Player
from tests.support.cluster import is_running
from tests.support.tcp_proxy import FETCH, PRODUCE, Mischief, Rule, TcpProxy

TERM_SECONDS = 20.0
"""Within that time there must be a new leader."""
STEPS = (IN_HANDLER, "begun", "outputs-part", "blocks-sent", "markers-sent", "flushed", "committed")
"""Where an epoch is hit."""


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of fault; `needs_moves`: it strikes in a phase of a move."""

    name: str
    inflict: Callable[[Stage, Outcome], None]
    needs_moves: bool = False
    group: str = ""


@dataclass(frozen=True, slots=True)
class Strike:
    """Who is hit, in which phase of a move or at which step of an epoch, by SIGKILL or by SIGSTOP."""

    role: Role
    phase: Phase = Phase.NONE
    step: str = ""
    freeze: bool = False
    also: Role | None = None
    """Who is killed with it, at the same moment."""
    damage: bool = False
    """Its local store is damaged while it is dead."""

    @property
    def name(self) -> str:
        deed = "stop" if self.freeze else "kill"
        whom = f"{self.role.value} and {self.also.value}" if self.also else self.role.value
        damage = " and damage its store" if self.damage else ""
        return f"{deed} {whom} at {self.phase.value or self.step or 'any step'}{damage}"

    @property
    def want(self) -> Want:
        """Who is held for it: the victim itself, or the one without whom the move cannot leave the phase."""
        match self.phase:
            case Phase.NONE:
                hand = 0 if self.role is Role.LEADER else 1
                return Want(0, self.role, step=self.step, hand=hand)
            case Phase.WARM:
                return Want(0, Role.TARGET, Phase.WARM)
            case Phase.ORDERED:
                return Want(0, Role.SOURCE, Phase.ORDERED)
            case Phase.RELEASED:
                return Want(0, Role.TARGET, Phase.RELEASED)
            case Phase.ADOPTING:
                return Want(0, Role.TARGET, Phase.ADOPTING, step="h-taken")
            case Phase.ADOPTED:
                return Want(0, Role.LEADER, Phase.ADOPTED)

    def inflict(self, stage: Stage, outcome: Outcome) -> None:
        with stage.held(self.want, 25.0 if self.phase else 8.0) as held:
            if held is None:
                outcome.doubt = "nobody came there"
                return
            outcome.held = held
            if self.phase is Phase.RELEASED:
                waited(lambda: _released(stage, held), 5.0, 0.005)
            victim = self._victim(stage, held, self.role)
            if victim is None:
                outcome.doubt = f"there was no {self.role.value}"
                return
            outcome.victim = victim.name
            if self.freeze:
                self._freeze(stage, outcome, held, victim)
            else:
                self._kill(stage, outcome, held, victim)

    def _victim(self, stage: Stage, held: Mark, role: Role) -> Player | None:
        named = stage.troupe.named
        match role:
            case Role.LEADER:
                return named(stage.control.leader)
            case Role.SOURCE:
                return named(held.source)
            case Role.TARGET:
                return named(held.target)
            case Role.WORKER:
                return named(held.incarnation)
            case Role.STANDBY:
                standbys = [s for s in self._standbys(stage, held) if s not in (held.source, held.target)]
                return named(standbys[0]) if standbys else None

    def _standbys(self, stage: Stage, held: Mark) -> tuple[str, ...]:
        return stage.control.standbys_of(held.shard, KeyRange(held.lo, held.hi)) if held.move else ()

    def _blow(self, stage: Stage, held: Mark, victim: Player, role: Role) -> Blow:
        now = time.monotonic()
        standbys, leader = self._standbys(stage, held), stage.control.leader
        return Blow(held.want, role, self.phase, victim.incarnation, now, now, standbys, leader)

    def _kill(self, stage: Stage, outcome: Outcome, held: Mark, victim: Player) -> None:
        blow, term, incarnation = self._blow(stage, held, victim, self.role), stage.control.term, victim.incarnation
        lost = stage.control.tiles_of(incarnation)
        back = 2.5 if self.damage else stage.back(victim)
        over = stage.troupe.kill(victim, back_s=back)
        stage.judge(outcome, _over(blow, over))
        outcome.notes.append(f"back after {back} s")
        if self.damage:
            outcome.notes.append(f"damaged {_damaged(stage, victim)}")
        if self.also is not None:
            lost += self._kill_also(stage, outcome, held, self.also)
        if stage.dice.random() < 0.6:
            stage.troupe.tell_exit(incarnation, restarts=back < 1)
            outcome.notes.append("exit reported")
        stage.let_go(held)
        leads = victim.command == "coordinator"
        _await(stage, outcome, stage.follow(lost, blow.at) if lost else None, blow.at, term if leads else None)

    def _kill_also(self, stage: Stage, outcome: Outcome, held: Mark, role: Role) -> list[Lost]:
        """The second victim, in the very same phase; what it owned."""
        other = self._victim(stage, held, role)
        if other is None or other.name == outcome.victim:
            outcome.counted, outcome.doubt = False, f"there was no {role.value} beside {outcome.victim}"
            return []
        blow, lost = self._blow(stage, held, other, role), stage.control.tiles_of(other.incarnation)
        over = stage.troupe.kill(other, back_s=stage.back(other))
        if outcome.counted:
            at = outcome.at
            stage.judge(outcome, _over(blow, over))
            outcome.at = at
        outcome.victim += f", {other.name}"
        return lost

    def _freeze(self, stage: Stage, outcome: Outcome, held: Mark, victim: Player) -> None:
        blow, term = self._blow(stage, held, victim, self.role), stage.control.term
        lost, process = stage.control.tiles_of(victim.incarnation), victim.process
        assert process is not None
        over = stage.troupe.freeze(victim)
        stage.judge(outcome, _over(blow, over))
        seconds = stage.dice.uniform(*stage.freeze_s)
        outcome.notes.append(f"stopped for {seconds:.1f} s")
        recovery = stage.follow(lost, blow.at) if lost else None
        stage.let_go(held)
        try:
            _sleep(over + seconds)
            if victim.command == "coordinator" and not waited(lambda: stage.control.term > term, TERM_SECONDS):
                outcome.notes.append("nobody else led meanwhile")
        finally:
            stage.troupe.thaw(process)
        took_over = stage.control.term > term if victim.command == "coordinator" else not _owns(stage, victim, lost)
        outcome.notes.append("replaced meanwhile" if took_over else "went on as owner")
        if self.role is Role.LEADER and not took_over:
            outcome.counted, outcome.doubt = False, "there were no two leaders: nobody took over meanwhile"
        _await(stage, outcome, recovery, blow.at, term if victim.command == "coordinator" else None)
        outcome.notes.append("ended as a zombie" if not is_running(process.pid) else "lives on")


def _released(stage: Stage, held: Mark) -> bool:
    return any(
        m.what == "phase" and m.which == held.which and m.role == Role.SOURCE and m.phase == Phase.RELEASED
        for m in stage.marks.all()
    )


def _owns(stage: Stage, victim: Player, lost: Sequence[object]) -> bool:
    return bool(stage.control.tiles_of(victim.incarnation)) or not lost


def _over(blow: Blow, over: float) -> Blow:
    return replace(blow, over=over)


def _await(stage: Stage, outcome: Outcome, recovery: Recovery | None, since: float, term: int | None) -> None:
    """The next output of the lost keys, and, of a leader, the term after this one; then all is well again."""
    if term is not None:
        if waited(lambda: stage.control.term > term, TERM_SECONDS):
            at = next(h.at for h in stage.control.heard if getattr(h.message, "term", 0) > term)
            outcome.led_s = round(at - since, 3)
        else:
            outcome.stuck = f"no new leader within {TERM_SECONDS} s"
    stage.await_recovery(outcome, recovery)


def _damaged(stage: Stage, victim: Player) -> str:
    """Overwrite a piece of one of its files; which one."""
    folder = stage.cluster.data / stage.cluster.app / victim.name
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 0)
    chosen = stage.dice.choice([path for path in files if path.suffix == ".sst"] or files)
    if stage.dice.random() < 0.3:
        chosen = stage.dice.choice(files)
    size = chosen.stat().st_size
    with chosen.open("r+b") as file:
        file.seek(stage.dice.randrange(size))
        file.write(stage.dice.randbytes(64))
    stage.troupe.damaged.add(victim.name)
    return chosen.name


def _sleep(until: float) -> None:
    time.sleep(max(0.0, until - time.monotonic()))


# -- without a hold: at any instruction


def kill_at_any_instant(stage: Stage, outcome: Outcome) -> None:
    """From outside; it counts if the worker's own log says that it had handled records after its last commit."""
    victim = stage.dice.choice(stage.troupe.workers())
    incarnation = victim.incarnation
    waited(lambda: in_hand(stage.troupe.tail(victim, 20_000), incarnation) > 0, 2.0, 0.003)
    at = time.monotonic()
    lost = stage.control.tiles_of(incarnation)
    stage.troupe.kill(victim, back_s=stage.back(victim))
    hand = in_hand(stage.troupe.tail(victim, 200_000), incarnation)
    outcome.victim, outcome.at, outcome.counted = victim.name, round(at - stage.began, 3), hand > 0
    outcome.doubt = "" if hand else "the victim held no uncommitted record"
    outcome.notes.append(f"{hand} records in hand")
    if stage.dice.random() < 0.6:
        stage.troupe.tell_exit(incarnation, restarts=False)
    _await(stage, outcome, stage.follow(lost, at) if lost else None, at, None)


def in_hand(tail: str, incarnation: str) -> int:
    """Records that a worker had handled since its last commit, by the end of its log."""
    hand = 0
    for line in reversed(tail.splitlines()):
        try:
            fields = json.loads(line)
        except ValueError:
            continue
        if not isinstance(fields, dict) or fields.get("incarnation") != incarnation:
            continue
        if fields.get("event") in ("committed", "undone"):
            break
        if fields.get("event") == "handled":
            hand += int(fields["records"])
    return hand


# -- the broker


def restart_the_broker(stage: Stage, outcome: Outcome) -> None:
    """Stopped in order while a worker is in mid-epoch, away for a moment, started again on the same data.

    Nobody's commit is under way just then: see `tests/support/quiet_stop.py`.
    """
    with stage.held(Want(0, Role.WORKER, hand=1, seconds_max=40)) as held:
        if held is None:
            outcome.doubt = "nobody was in mid-epoch"
            return
        outcome.held, outcome.victim = held, "broker"
        lost, at = stage.everything(), time.monotonic()
        stage.troupe.outlast(stage.broker.machine.stop)
        over = time.monotonic()
        stage.judge(outcome, Blow(held.want, Role.WORKER, Phase.NONE, held.incarnation, at, over))
    time.sleep(stage.dice.choice((0.0, 2.0)))
    stage.broker.machine.start()
    recovery = None
    for _ in range(20):
        try:
            recovery = stage.follow(lost, at)
            break
        except Exception as error:  # noqa: BLE001 - it serves soon
            outcome.notes.append(str(error)[:80])
            time.sleep(0.5)
    outcome.notes.append(f"away for {time.monotonic() - over:.1f} s")
    stage.await_recovery(outcome, recovery)


# -- the network


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something between one process and the broker; `work` lets it go on under the trouble for some time."""

    name: str
    begin: Callable[[TcpProxy, str], object]
    seconds: tuple[float, ...]
    step: str = ""
    held: bool = False
    """It counts only if a request or reply was in fact withheld."""

    def inflict(self, stage: Stage, outcome: Outcome) -> None:
        behind = [player for player in stage.troupe.workers() if player.door >= 0]
        behind = [player for player in behind if stage.control.tiles_of(player.incarnation)]
        if not behind:
            outcome.doubt = "no worker behind a proxy has a tile"
            return
        victim = stage.dice.choice(behind)
        proxy = stage.broker.proxies[victim.door]
        with stage.held(Want(0, Role.WORKER, step=self.step, hand=1, who=victim.incarnation), 8.0) as held:
            if held is None:
                outcome.doubt = "the worker was not in mid-epoch"
                return
            outcome.held, outcome.victim = held, victim.name
            lost, at = stage.control.tiles_of(victim.incarnation), time.monotonic()
            told = self.begin(proxy, victim.incarnation)
            over = time.monotonic()
            stage.judge(outcome, Blow(held.want, Role.WORKER, Phase.NONE, held.incarnation, at, over))
        self._endure(stage, outcome, proxy, over)
        outcome.notes.append(f"{told} connections" if isinstance(told, int) else "")
        stage.await_recovery(outcome, stage.follow(lost, at) if lost else None)

    def _endure(self, stage: Stage, outcome: Outcome, proxy: TcpProxy, since: float) -> None:
        try:
            if self.held:
                try:
                    proxy.wait_held(seconds=3.0)
                except TimeoutError:
                    outcome.counted, outcome.doubt = False, "nothing was withheld"
            seconds = stage.dice.choice(self.seconds)
            outcome.notes.append(f"for {seconds} s")
            _sleep(since + seconds)
        finally:
            proxy.mend()
            proxy.release()


def _withhold(api_key: int) -> Callable[[TcpProxy, str], object]:
    return lambda proxy, _: proxy.apply(Rule(Mischief.WITHHOLD_REPLY, api_key=api_key))


def _slow(proxy: TcpProxy, _: str) -> None:
    proxy.delay_seconds = 0.25


TROUBLES = (
    Trouble("cut the connections of a worker", lambda proxy, _: proxy.cut(), (0.05, 1.0, 4.0)),
    Trouble("cut the connections within a transaction", lambda proxy, _: proxy.cut(), (0.05, 0.5), step="flushed"),
    Trouble("half-open: nothing reaches the broker", lambda proxy, _: proxy.hang("up"), (1.0, 7.0), step="begun"),
    Trouble("half-open: nothing comes back", lambda proxy, _: proxy.hang("down"), (1.0, 7.0)),
    Trouble("the network hangs both ways", lambda proxy, _: proxy.hang("up", "down"), (1.0, 7.0), step="flushed"),
    Trouble("every frame is late", _slow, (3.0,)),
    Trouble(
        "the reply to a commit is withheld",
        lambda proxy, who: proxy.apply(Rule(Mischief.WITHHOLD_REPLY, who)),
        (1.0, 6.0),
        step="flushed",
        held=True,
    ),
    Trouble(
        "the request to commit is withheld",
        lambda proxy, who: proxy.apply(Rule(Mischief.HOLD_REQUEST, who)),
        (1.0, 6.0),
        step="flushed",
        held=True,
    ),
    Trouble("replies to produce requests are withheld", _withhold(PRODUCE), (1.0, 6.0), step="begun", held=True),
    Trouble("replies to fetch requests are withheld", _withhold(FETCH), (1.0, 6.0), held=True),
)


def cut_off_a_leader(stage: Stage, outcome: Outcome) -> None:
    """In the middle of writing a plan, if the leader is behind a proxy; another one takes over meanwhile, perhaps."""
    leader = stage.troupe.named(stage.control.leader)
    if leader is None or leader.door < 0:
        outcome.doubt = "the leader is not behind a proxy"
        return
    proxy = stage.broker.proxies[leader.door]
    step = "plan-begun" if stage.mover is not None else ""
    with stage.held(Want(0, Role.LEADER, step=step, who=leader.incarnation), 15.0) as held:
        if held is None:
            outcome.doubt = "it wrote no plan"
            return
        outcome.held, outcome.victim, at = held, leader.name, time.monotonic()
        proxy.cut()
        over = time.monotonic()
        stage.judge(outcome, Blow(held.want, Role.LEADER, Phase.NONE, leader.incarnation, at, over))
    try:
        _sleep(over + stage.dice.choice((0.5, 6.0)))
    finally:
        proxy.mend()
    stage.await_recovery(outcome, None)


# -- all of them

MOVE_ROLES = (Role.SOURCE, Role.TARGET, Role.LEADER, Role.STANDBY)
MOVE_PHASES = (Phase.WARM, Phase.ORDERED, Phase.RELEASED, Phase.ADOPTING, Phase.ADOPTED)


def all_kinds() -> list[Kind]:
    """Every kind that there is."""
    strikes = [Strike(Role.WORKER, step=step) for step in STEPS]
    strikes += [Strike(Role.WORKER, step=step, freeze=True) for step in (IN_HANDLER, "outputs-part", "flushed")]
    strikes += [Strike(Role.WORKER, step=step, damage=True) for step in (IN_HANDLER, "committed")]
    strikes += [Strike(Role.LEADER), Strike(Role.LEADER, freeze=True)]
    strikes += [Strike(role, phase) for role in MOVE_ROLES for phase in MOVE_PHASES]
    strikes += [Strike(role, phase, freeze=True) for role in (Role.SOURCE, Role.TARGET) for phase in MOVE_PHASES]
    strikes += [Strike(Role.LEADER, phase, freeze=True) for phase in (Phase.ORDERED, Phase.RELEASED, Phase.ADOPTED)]
    strikes += [Strike(Role.SOURCE, phase, also=Role.TARGET) for phase in (Phase.ORDERED, Phase.RELEASED)]
    strikes += [Strike(Role.LEADER, phase, also=Role.SOURCE) for phase in (Phase.ORDERED, Phase.ADOPTED)]
    strikes += [Strike(Role.LEADER, phase, also=Role.TARGET) for phase in (Phase.RELEASED, Phase.ADOPTING)]
    kinds = [Kind(s.name, s.inflict, s.phase is not Phase.NONE, _group(s)) for s in strikes]
    kinds.append(Kind("kill worker at any instant", kill_at_any_instant, group="epoch"))
    kinds.append(Kind("restart the broker", restart_the_broker, group="broker"))
    kinds += [Kind(trouble.name, trouble.inflict, group="network") for trouble in TROUBLES]
    kinds.append(Kind("cut off the leader", cut_off_a_leader, group="network"))
    return kinds


def _group(strike: Strike) -> str:
    if strike.freeze:
        return "two leaders" if strike.role is Role.LEADER else "zombie"
    return "move" if strike.phase else "leader" if strike.role is Role.LEADER else "epoch"


SHORT = (
    "kill worker at in-handler",
    "kill source at release ordered",
    "kill target at adopting",
    "the reply to a commit is withheld",
    "kill leader at released, not adopted",
    "stop worker at outputs-part",
    "restart the broker",
    "kill source at released, not adopted",
    "kill target at adopted, plan not written",
    "kill worker at committed",
    "stop leader at any step",
    "kill target at warm",
    "cut the connections within a transaction",
    "kill leader at adopted, plan not written",
    "kill source at adopting",
    "kill target at released, not adopted",
    "kill standby at adopting",
    "kill worker at any instant",
    "half-open: nothing comes back",
    "stop source at release ordered",
)
"""The kinds of the short form: the most telling of each group."""


def endless(kinds: Sequence[Kind], dice: random.Random) -> Iterator[Kind]:
    """All kinds in random order, again and again."""
    while True:
        yield from dice.sample(kinds, len(kinds))


@contextmanager
def noted(stage: Stage, outcome: Outcome) -> Iterator[None]:
    """A fault that breaks down is no fault, but says so."""
    try:
        yield
    except AssertionError as error:
        outcome.counted, outcome.doubt = False, f"it could not be inflicted: {error}"
        for proxy in stage.broker.proxies:
            proxy.mend()
            proxy.release()
