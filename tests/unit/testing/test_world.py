"""The world: what a crash, a stop and a delay do to processes and to the log between them."""

from __future__ import annotations

from kstate.clock import Step, Steps
from kstate.interfaces import TopicSpec
from kstate.plan import TopicPartition
from kstate.testing.world import Actor, FairDirector, Status, World

T = TopicPartition("t", 0)


def walker(names: list[str], done: list[str]) -> Steps[str]:
    """Takes these steps; whatever it does when it is closed shows in `done`."""
    try:
        for name in names:
            done.append(name)
            yield Step(name)
    finally:
        done.append("cleaned up")
    return "arrived"


def test_a_process_takes_its_steps_and_ends_with_a_result() -> None:
    """Each step is counted under its role, and stands in the story."""
    world, done = World(), list[str]()
    process = world.start("worker", "w", "w.1", walker(["a", "b"], done))
    assert world.run(lambda: process.status is Status.ENDED, 100)
    assert (process.result, done) == ("arrived", ["a", "b", "cleaned up"])
    assert world.coverage["worker", "a"] == world.coverage["worker", "b"] == 1
    assert "w.1" in world.told()


def test_a_crashed_process_runs_no_further_instruction() -> None:
    """Not even its own clean-up, as long as the world lasts."""
    world, done = World(), list[str]()
    process = world.start("worker", "w", "w.1", walker(["a", "b"], done), walker(["x"] * 9, done))
    world.run(lambda: process.main.at == "a", 100)
    before = list(done)
    world.crash(process)
    world.start("outside", "o", "o.1", walker(["o"] * 20, []))
    for _ in range(20):
        world.turn()
    assert (done, process.status, world.running()[0].name) == (before, Status.CRASHED, "o")


def test_a_crash_leaves_its_transaction_open() -> None:
    """Until the broker's timeout, or somebody fences it: readers see nothing that lies behind."""
    world = World(transaction_timeout_ms=1_000)
    world.log.create_topics([TopicSpec("t", 1)])

    def writer() -> Steps[None]:
        producer = world.log.producer("id")
        producer.open()
        producer.begin()
        producer.send("t", [{"value": b"x", "partition": 0}])
        yield Step("sent")
        producer.commit()

    process = world.start("worker", "w", "w.1", writer())
    world.run(lambda: process.main.at == "sent", 10)
    world.crash(process)
    assert world.log.end_offsets([T], committed=True)[T] == 0
    world.clock.sleep(1.0)
    assert world.log.end_offsets([T], committed=True)[T] == 2
    assert world.log.records(T) == []


def test_a_held_process_stands_still_until_it_is_released() -> None:
    """Others go on meanwhile."""
    world, held, free = World(), list[str](), list[str]()
    process = world.start("worker", "w", "w.1", walker(["a"] * 50, held))
    world.hold(process)
    other = world.start("worker", "v", "v.1", walker(["b"] * 5, free))
    world.run(lambda: other.status is Status.ENDED, 100)
    assert (len(free), held) == (6, [])
    world.release(process)
    assert world.run(lambda: process.status is Status.ENDED, 200)


def test_markers_arrive_when_the_director_says() -> None:
    """A commit is decided at once, and visible when its marker is there."""

    class Slow(FairDirector):
        def marker_delay(self, log: object) -> float:
            return 5.0

    world = World(auto_deliver=False)
    world.director = Slow()
    world.log.create_topics([TopicSpec("t", 1)])

    def writer() -> Steps[None]:
        producer = world.log.producer("id")
        producer.open()
        producer.begin()
        producer.send("t", [{"value": b"x", "partition": 0}])
        producer.commit()
        yield Step("committed")

    process = world.start("worker", "w", "w.1", writer())
    world.run(lambda: process.status is Status.ENDED, 10)
    assert (world.quiet, world.log.records(T)) == (False, [])
    assert world.run(lambda: world.quiet, 10)
    assert (world.clock.now, len(world.log.records(T))) == (5.0, 1)


def test_what_a_process_dies_of_is_kept() -> None:
    """The world goes on and tells."""
    world = World()

    def faulty() -> Steps[None]:
        yield Step("a")
        raise ValueError("a bug")

    gone: list[str] = []
    process = world.start("worker", "w", "w.1", faulty())
    process.gone = lambda p: gone.append(p.incarnation)
    world.run(lambda: process.status is not Status.RUNNING, 10)
    assert (repr(process.result), gone) == ("ValueError('a bug')", ["w.1"])


def test_the_director_is_asked_for_faults_on_behalf_of_whoever_calls() -> None:
    """And not for calls that the test itself makes."""
    asked: list[str | None] = []

    class Asked(FairDirector):
        def fault(self, actor: Actor | None, call: object) -> None:
            asked.append(actor.name if actor else None)

    world = World()
    world.director = Asked()

    def caller() -> Steps[None]:
        world.log.partitions(["t"])
        yield Step("asked")

    world.start("worker", "w", "w.1", caller())
    world.turn()
    world.log.partitions(["t"])
    assert asked == ["w.1", None]
