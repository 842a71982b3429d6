from dataclasses import replace

from benchmarks.demo.standing import is_uneven, shares, unsettled
from kstate.keyspace import FULL_RANGE, SLOTS, KeyRange
from kstate.messages import Heartbeat, TilePhase, TileReport
from kstate.plan import Member, Move, MovePhase, Plan, Registry, Shard, Tile

LOW, HIGH = KeyRange(0, SLOTS // 2), KeyRange(SLOTS // 2, SLOTS)
FIRST, SECOND = Shard("count", 0), Shard("count", 1)
TILES = (Tile(FIRST, FULL_RANGE, "i1", 3), Tile(SECOND, LOW, "i1", 3), Tile(SECOND, HIGH, "i2", 4))
PLAN = Plan("app", 4, 1, (Member("w1", "i1"), Member("w2", "i2")), (), TILES, Registry(), {}, {})


def report(tile: Tile, phase: str = "running") -> TileReport:
    """What the owner of a tile says of it."""
    return TileReport(tile.shard, tile.key_range, tile.grant, TilePhase(phase), 1, {})


def beats(*reports: tuple[str, TileReport]) -> dict[str, Heartbeat]:
    """The newest heartbeats of i1 and i2."""
    return {
        who: Heartbeat(who, who.replace("i", "w"), "host", 1, 1, 4, tuple(r for w, r in reports if w == who))
        for who in ("i1", "i2")
    }


ALL = [("i1", report(TILES[0])), ("i1", report(TILES[1])), ("i2", report(TILES[2]))]


def test_a_job_is_settled_when_every_owner_runs_what_it_owns() -> None:
    """The plan is an intention; the heartbeats say whether it is carried out."""
    assert unsettled(PLAN, beats(*ALL), 2) == ""
    assert unsettled(PLAN, beats(*ALL[:2]), 2) == "count[1] [0x8000, 0x10000) is not reported to run at i2"
    assert unsettled(PLAN, {}, 2) == "count[0] [0x0000, 0x10000) is not reported to run at i1"


def test_a_tile_that_is_copied_or_runs_under_an_older_grant_is_not_settled() -> None:
    """Neither is one that only a former owner reports, nor one of which only a part runs."""
    copied = ("i2", report(TILES[2], "warm"))
    older = ("i2", replace(report(TILES[2]), grant=3))
    former = ("i1", report(TILES[2]))
    part = ("i2", replace(report(TILES[2]), key_range=KeyRange(HIGH.lo, HIGH.hi - 1)))
    for wrong in (copied, older, former, part):
        assert "count[1] [0x8000" in unsettled(PLAN, beats(*ALL[:2], wrong), 2)


def test_pieces_that_run_side_by_side_are_the_whole_tile() -> None:
    """After a merge they may stand at unequal progress for a while."""
    pieces = [("i1", replace(report(TILES[0]), key_range=part)) for part in (LOW, HIGH)]
    assert unsettled(PLAN, beats(*ALL[1:], *pieces), 2) == ""


def test_nothing_is_settled_without_plan_or_worker_or_during_a_move() -> None:
    """The reason says which."""
    assert unsettled(None, {}, 2) == "there is no plan"
    assert unsettled(PLAN, beats(*ALL), 3) == "plan 4 has 2 of 3 workers"
    move = Move(4, FIRST, FULL_RANGE, "i1", "i2", 4, MovePhase.WARM)
    assert unsettled(replace(PLAN, moves=(move,)), beats(*ALL), 2).startswith("plan 4 has move 4 of count[0]")
    nobodys = replace(PLAN, tiles=(replace(TILES[0], worker=None), *TILES[1:]))
    assert unsettled(nobodys, beats(*ALL), 2).endswith("run at anybody")


def test_shares_count_tiles_by_name() -> None:
    """A worker without any counts, too; one tile more or less is fair."""
    assert shares(PLAN) == {"w1": 2, "w2": 1}
    assert not is_uneven(PLAN)
    alone = replace(PLAN, tiles=tuple(replace(tile, worker="i1") for tile in TILES))
    assert shares(alone) == {"w1": 3, "w2": 0}
    assert is_uneven(alone)
