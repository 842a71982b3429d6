"""The live event time of a piece."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from kstate.keyspace import FULL_RANGE, KeyRange
from kstate.state.frames import FieldReader, pack_times
from kstate.times import UNKNOWN_TIME, Times, joined
from kstate.worker.stream_frames import WatermarkFrame
from kstate.worker.watermarks import IDLE_STEP_MS_MAX, Told, Watermarks

LOW, HIGH = KeyRange(0, 0x8000), KeyRange(0x8000, 0x10000)
CLICKS, VIEWS, WORDS = "clicks", "views", "app.split.words"
LATENESS = {CLICKS: 10, VIEWS: 0}


def piece(*inputs: str, times: Times | None = None) -> Watermarks:
    """A piece of an operator that reads these."""
    external = {topic: late for topic, late in LATENESS.items() if topic in inputs}
    return Watermarks(times or Times(), external, {WORDS} & set(inputs))


def said(partition: int, watermark: int, key_range: KeyRange = FULL_RANGE, *, idle: bool = False) -> WatermarkFrame:
    """A frame of one of two upstream partitions."""
    return WatermarkFrame("split", partition, 2, key_range, 1, watermark, idle)


def taken(marks: Watermarks, topic: str, *event_times: int) -> list[int]:
    """Handle records; the watermark at each."""
    over = marks.over(topic, event_times)
    marks.take(topic, event_times)
    assert not over or marks.current == over[-1]
    return over


# -- records


def test_the_watermark_is_the_highest_event_time_less_the_lateness() -> None:
    """Each record counts before it is handled; one out of order takes nothing back."""
    marks = piece(CLICKS)
    assert marks.current == UNKNOWN_TIME
    assert taken(marks, CLICKS, 100, 95, 120, 50, 121) == [90, 90, 110, 110, 111]
    assert taken(marks, CLICKS, 1, 122) == [111, 112]
    assert taken(marks, CLICKS) == []


def test_asking_changes_nothing() -> None:
    """The batch may be cut where a timer falls due: a part is taken, and the rest asked for again."""
    marks = piece(CLICKS)
    assert marks.over(CLICKS, [100, 200, 300]) == [90, 190, 290]
    assert marks.current == UNKNOWN_TIME
    marks.take(CLICKS, [100, 200])
    assert (marks.current, marks.over(CLICKS, [300])) == (190, [290])


def test_several_inputs_go_by_the_least() -> None:
    """One that has had no record yet holds everything."""
    marks = piece(CLICKS, VIEWS)
    assert taken(marks, CLICKS, 100, 200) == [UNKNOWN_TIME] * 2
    assert taken(marks, VIEWS, 50, 150, 400) == [50, 150, 190]
    assert taken(marks, CLICKS, 205, 500) == [195, 400]


def test_tables_and_records_of_streams_do_not_count() -> None:
    """A stream's time comes in frames, a table has none."""
    marks = piece(CLICKS, WORDS)
    taken(marks, CLICKS, 100)
    for topic in (WORDS, "a-table"):
        assert taken(marks, topic, 900, 901) == [UNKNOWN_TIME] * 2
    marks.set_idle("a-table", WORDS)
    assert not marks.idle


def test_an_input_that_a_newer_job_added_does_not_take_time_back() -> None:
    """It is waited for from there on; one that the job dropped is forgotten."""
    marks = piece(CLICKS)
    taken(marks, CLICKS, 100)
    marks = piece(CLICKS, VIEWS, times=marks.frozen(0))
    assert taken(marks, CLICKS, 200) == [90]
    assert taken(marks, VIEWS, 50, 95) == [90, 95]
    assert piece(CLICKS, times=marks.frozen(0)).current == 190


# -- frames


def test_a_stream_goes_by_the_frames_of_all_its_upstream_pieces() -> None:
    """Those of split halves too: every slot of every partition must be heard of."""
    marks, seen = piece(WORDS), []
    for frame in (said(0, 50), said(1, 20, LOW), said(1, 30, HIGH), said(1, 70, LOW), said(0, 40), said(1, 70)):
        marks.frame(WORDS, frame)
        seen.append(marks.current)
    assert seen == [UNKNOWN_TIME, UNKNOWN_TIME, 20, 30, 30, 50]


def test_frames_and_records_together() -> None:
    """The least of topic and stream."""
    marks = piece(CLICKS, WORDS)
    marks.frame(WORDS, said(0, 50))
    marks.frame(WORDS, said(1, 60))
    assert taken(marks, CLICKS, 55, 200) == [45, 50]
    marks.frame(WORDS, said(0, 300))
    assert marks.current == 60


def test_the_same_stream_is_heard_whatever_shortcuts_there_are() -> None:
    """Many partitions in turn, each the one everybody waits for."""
    marks = Watermarks(Times(), {}, {WORDS})
    for now in range(1, 5):
        for partition in range(20):
            marks.frame(WORDS, WatermarkFrame("split", partition, 20, FULL_RANGE, 1, 100 * now - partition, False))
            assert marks.current == (
                100 * now - 19 if partition == 19 else 100 * now - 119 if now > 1 else UNKNOWN_TIME
            )


def test_a_stream_whose_writer_has_other_partitions_now_is_heard_anew() -> None:
    """A newer version of the job reads another topic upstream; the watermark stays where it was meanwhile."""
    marks = piece(WORDS)
    for partition in (0, 1):
        marks.frame(WORDS, said(partition, 50))
    for partition, expected in enumerate((50, 50, 80)):
        marks.frame(WORDS, replace(said(partition, 80), of=3, grant=2))
        assert marks.current == expected
    assert {part.of for part in marks.frozen(0).streams[WORDS]} == {3}
    marks.frame(WORDS, replace(said(0, 90), of=1, grant=3))
    assert marks.current == 90, "nobody waits for partitions that are no more"


# -- idle


def test_an_idle_input_leaves_the_minimum_until_it_has_a_record() -> None:
    """Even a late one: then it is waited for again."""
    marks = piece(CLICKS, VIEWS)
    taken(marks, CLICKS, 100)
    taken(marks, VIEWS, 30)
    assert marks.current == 30
    marks.set_idle(VIEWS)
    assert (marks.current, marks.idle) == (90, False)
    assert taken(marks, CLICKS, 210) == [200]
    assert taken(marks, VIEWS, 40) == [200]
    assert taken(marks, CLICKS, 900) == [200]
    assert taken(marks, VIEWS, 250) == [250]


def test_with_everything_idle_the_watermark_goes_on_at_the_clocks_rate() -> None:
    """From where it stood, and not while any input is active."""
    marks = piece(CLICKS, VIEWS)
    taken(marks, CLICKS, 100)
    taken(marks, VIEWS, 30)
    marks.advance_idle(1_000)
    assert marks.current == 30
    marks.set_idle(VIEWS, CLICKS)
    assert (marks.current, marks.idle) == (30, True)
    marks.advance_idle(1_000)
    marks.advance_idle(0)
    marks.advance_idle(-5)
    marks.advance_idle(500)
    assert marks.current == 1_530
    assert taken(marks, CLICKS, 600, 2_000) == [1_530, 1_990]
    marks.advance_idle(1_000)
    assert marks.current == 1_990


def test_unknown_stays_unknown() -> None:
    """Nothing was ever read: there is no place to go on from."""
    marks = piece(CLICKS, WORDS)
    marks.set_idle(CLICKS)
    for partition in (0, 1):
        marks.frame(WORDS, said(partition, UNKNOWN_TIME, idle=True))
    assert marks.idle
    marks.advance_idle(1_000)
    assert marks.current == UNKNOWN_TIME
    marks = piece(CLICKS, times=marks.frozen(0))
    assert marks.idle
    assert taken(marks, CLICKS, 100) == [90]


def test_an_empty_input_does_not_hide_the_time_of_the_others_when_all_are_idle() -> None:
    """Whatever is found idle first: the last windows must close."""
    marks = piece(CLICKS, VIEWS)
    taken(marks, CLICKS, 100)
    marks.set_idle(CLICKS)
    assert marks.current == UNKNOWN_TIME
    marks.set_idle(VIEWS)
    marks.advance_idle(5)
    assert marks.current == 95


def test_an_idle_upstream_leaves_the_minimum_of_its_stream() -> None:
    """And comes back with its next frame that is not idle."""
    marks = piece(WORDS)
    marks.frame(WORDS, said(0, 50))
    marks.frame(WORDS, said(1, 20, idle=True))
    marks.frame(WORDS, said(0, 80))
    assert (marks.current, marks.idle) == (80, False)
    marks.frame(WORDS, said(1, 85))
    marks.frame(WORDS, said(0, 99))
    assert marks.current == 85


def test_a_stream_that_was_idle_wakes_with_one_of_its_upstreams() -> None:
    """Whichever it is."""
    for partition in (0, 1):
        marks = piece(WORDS)
        for idle in (0, 1):
            marks.frame(WORDS, said(idle, 50 + idle, idle=True))
        assert marks.idle
        marks.frame(WORDS, said(partition, 70))
        assert (marks.idle, marks.current) == (False, 70)


def test_a_stage_never_runs_ahead_of_an_idle_one_before_it() -> None:
    """What the first emits when its last windows close would be late at the second."""
    marks = piece(WORDS)
    marks.frame(WORDS, said(0, 50, idle=True))
    marks.frame(WORDS, said(1, 40, idle=True))
    marks.advance_idle(10_000)
    assert (marks.idle, marks.current) == (True, 40)
    marks.frame(WORDS, said(1, 60, idle=True))
    assert marks.current == 50
    marks.frame(WORDS, said(0, 70, idle=True))
    assert marks.current == 60


def test_an_upstream_that_was_left_behind_holds_nobody_up() -> None:
    """It was idle, with old records, while others went on."""
    marks = piece(WORDS)
    marks.frame(WORDS, said(0, 5, idle=True))
    marks.frame(WORDS, said(1, 900))
    marks.frame(WORDS, said(1, 900, idle=True))
    marks.frame(WORDS, said(0, 6, idle=True))
    marks.frame(WORDS, said(1, 950, idle=True))
    assert marks.current == 950


def test_an_idle_topic_waits_for_an_idle_stream() -> None:
    """The clock's rate, but not beyond what the writers of the stream have said."""
    marks = piece(CLICKS, WORDS)
    taken(marks, CLICKS, 100)
    for partition in (0, 1):
        marks.frame(WORDS, said(partition, 90, idle=True))
    marks.set_idle(CLICKS)
    marks.advance_idle(1_000)
    assert marks.current == 90
    for partition in (0, 1):
        marks.frame(WORDS, said(partition, 2_000, idle=True))
    assert marks.current == 90
    marks.advance_idle(1_000)
    assert marks.current == 1_090
    marks.advance_idle(1_000)
    assert marks.current == 2_000


# -- frames to send


def test_a_frame_is_due_when_the_watermark_or_idleness_changed() -> None:
    """And once at the beginning when there is something to say."""
    marks = piece(CLICKS, VIEWS)
    assert not marks.to_send(None)
    taken(marks, CLICKS, 100)
    taken(marks, VIEWS, 30)
    assert marks.to_send(None)
    sent = marks.tells()
    assert not marks.to_send(sent)
    taken(marks, CLICKS, 200)
    assert not marks.to_send(sent), "the piece still waits for the other input"
    marks.set_idle(VIEWS)
    assert marks.to_send(sent)
    sent = marks.tells()
    marks.set_idle(CLICKS)
    assert marks.to_send(sent), "the watermark is the same, but nobody needs to wait for this piece any more"
    sent = marks.tells()
    taken(marks, CLICKS, 50)
    assert marks.to_send(sent)


def test_an_idle_piece_that_knows_no_time_says_that_it_is_idle() -> None:
    """A partition without records must not hold those behind it."""
    marks = piece(CLICKS)
    marks.set_idle(CLICKS)
    assert marks.to_send(None)
    assert marks.to_send(Told(UNKNOWN_TIME, idle=False))
    assert not marks.to_send(marks.tells())


def test_an_idle_job_writes_ever_fewer_frames() -> None:
    """A day of idling with an epoch each second: few frames, none much later than it could be."""
    marks = piece(VIEWS)
    taken(marks, VIEWS, 1_000_000)
    marks.set_idle(VIEWS)
    sent, behind, frames = marks.tells(), [], 0
    for second in range(86_400):
        marks.advance_idle(1_000)
        if marks.to_send(sent):
            sent, frames = marks.tells(), frames + 1
        behind.append((second + 1, marks.current - sent.watermark))
    assert frames < 3_100
    assert all(late <= max(1_000 * idle_s / 16, 1) for idle_s, late in behind)
    assert max(late for _, late in behind) <= IDLE_STEP_MS_MAX
    taken(marks, VIEWS, 100_000_000)
    marks.set_idle(VIEWS)
    sent = marks.tells()
    marks.advance_idle(1_000)
    assert marks.to_send(sent), "it has been idle for a second only, this time"


# -- markers


def test_a_piece_goes_on_from_its_marker() -> None:
    """Inputs, idle flags, frames heard and the watermark itself."""
    marks = piece(CLICKS, VIEWS, WORDS)
    taken(marks, CLICKS, 100)
    marks.frame(WORDS, said(0, 95))
    marks.frame(WORDS, said(1, 70, LOW))
    marks.frame(WORDS, said(1, 80, HIGH, idle=True))
    marks.set_idle(VIEWS)
    marked = FieldReader(pack_times(marks.frozen(77)), 0, "Times").times()
    assert (marked.watermark, marked.clock_ms, marked.inputs) == (70, 77, {CLICKS: 90})
    assert marked.idle == frozenset({VIEWS})
    again = piece(CLICKS, VIEWS, WORDS, times=marked)
    assert again.frozen(60) == marked, "and the clock of processing time does not go back"
    for each in (marks, again):
        each.frame(WORDS, said(1, 99))
        assert each.current == 90


def test_a_marker_of_version_1_gives_the_watermarks_of_inputs() -> None:
    """The piece's own is made from them."""
    assert piece(CLICKS, VIEWS, times=Times(inputs={CLICKS: 90, VIEWS: 40})).current == 40
    assert piece(CLICKS, VIEWS, times=Times(inputs={CLICKS: 90})).current == UNKNOWN_TIME


def test_pieces_at_equal_progress_go_on_as_one() -> None:
    """Both have read the same records; one of them may have been idle for longer."""
    left, right = piece(CLICKS), piece(CLICKS)
    for each in (left, right):
        taken(each, CLICKS, 100)
    left.set_idle(CLICKS)
    left.advance_idle(50)
    both = piece(CLICKS, times=joined(left.frozen(1), right.frozen(2)))
    assert (both.current, both.idle) == (140, False)


# -- against the rules, step by step

TOPICS = [CLICKS, VIEWS, WORDS]
stretches = st.tuples(st.sampled_from(TOPICS), st.lists(st.integers(1, 60), max_size=6))
news = st.builds(
    said, st.integers(0, 1), st.integers(1, 60), st.sampled_from([LOW, HIGH, FULL_RANGE]), idle=st.booleans()
)
Event = tuple[str, list[int]] | WatermarkFrame | frozenset[str] | int
events = st.lists(
    st.one_of(stretches, news, st.frozensets(st.sampled_from([CLICKS, VIEWS]), min_size=1), st.integers(1, 20)),
    max_size=25,
)
inputs = st.sets(st.sampled_from(TOPICS), min_size=1)


def play(marks: Watermarks, event: Event) -> Iterator[int]:
    """Let an event happen; the watermark after each record, frame or step."""
    if isinstance(event, tuple):
        yield from taken(marks, event[0], *event[1])
        return
    if isinstance(event, WatermarkFrame):
        if marks._streams:
            marks.frame(WORDS, event)
    elif isinstance(event, frozenset):
        marks.set_idle(*event)
    else:
        marks.advance_idle(event)
    yield marks.current


def cut(story: list[Event]) -> list[Event]:
    """The same, record by record."""
    return [
        part
        for event in story
        for part in ([(event[0], [each]) for each in event[1]] if isinstance(event, tuple) else [event])
    ]


@settings(deadline=None)
@given(inputs, events, st.data())
def test_the_watermark_does_not_depend_on_the_cuts(topics: set[str], story: list[Event], data: st.DataObject) -> None:
    """Batches of any size, and a restart from the marker anywhere, give the same at each record; never back."""
    whole, single = piece(*topics), piece(*topics)
    seen = [mark for event in story for mark in play(whole, event)]
    steps = cut(story)
    restart = data.draw(st.integers(0, len(steps)))
    again = [mark for event in steps[:restart] for mark in play(single, event)]
    single = piece(*topics, times=single.frozen(0))
    again += [mark for event in steps[restart:] for mark in play(single, event)]
    assert again == seen
    assert all(before <= after for before, after in pairwise(seen))
    assert single.frozen(0) == whole.frozen(0)
    assert whole.frozen(0).watermark == whole.current


class Rules:
    """The rules said directly, slot half by slot half; slow and without shortcuts."""

    def __init__(self, topics: set[str]) -> None:
        self.highest: dict[str, int | None] = {topic: None for topic in topics if topic in LATENESS}
        self.asleep: set[str] = set()
        self.heard: dict[tuple[int, KeyRange], tuple[int, bool]] = {}
        self.stream = WORDS in topics
        self.now = UNKNOWN_TIME

    def play(self, event: Event) -> None:
        if isinstance(event, tuple):
            for each in event[1] if event[0] in self.highest else ():
                self.highest[event[0]] = max(self.highest[event[0]] or 0, each)
                self.asleep.discard(event[0])
        elif isinstance(event, WatermarkFrame) and self.stream:
            for half in (LOW, HIGH) if event.key_range == FULL_RANGE else (event.key_range,):
                before = self.heard.get((event.partition, half), (UNKNOWN_TIME, False))
                if event.watermark >= before[0]:
                    self.heard[event.partition, half] = event.watermark, event.idle
        elif isinstance(event, frozenset):
            self.asleep |= event & self.highest.keys()
        self._rise(event if isinstance(event, int) else 0)

    def idle(self) -> bool:
        """Of everything."""
        quiet = not self.stream or (len(self.heard) == 4 and all(idle for _, idle in self.heard.values()))
        return quiet and self.asleep == self.highest.keys()

    def _rise(self, elapsed: int) -> None:
        said = [mark for mark, _ in self.heard.values()]
        if not self.idle():
            active = [
                UNKNOWN_TIME if highest is None else highest - LATENESS[topic]
                for topic, highest in self.highest.items()
                if topic not in self.asleep
            ]
            if self.stream and len(self.heard) < 4:
                active.append(UNKNOWN_TIME)
            active += [mark for mark, idle in self.heard.values() if not idle]
            self.now = max(self.now, min(active))
        elif self.now == UNKNOWN_TIME:
            known = [highest - LATENESS[topic] for topic, highest in self.highest.items() if highest is not None]
            self.now = min([*known, *said], default=UNKNOWN_TIME)
        else:
            ahead = [mark for mark in said if mark >= self.now]
            limit = min(ahead, default=self.now if not self.highest else 1 << 63)
            self.now = min(self.now + elapsed, limit) if self.highest else limit


@settings(deadline=None, max_examples=300)
@given(inputs, events)
def test_the_watermark_follows_the_rules(topics: set[str], story: list[Event]) -> None:
    """Record by record against the rules said directly."""
    marks, rules = piece(*topics), Rules(topics)
    for event in cut(story):
        for mark in play(marks, event):
            rules.play(event)
            assert (mark, marks.idle) == (rules.now, rules.idle())


def test_frozen_times_are_values() -> None:
    """What was marked does not change with the piece."""
    marks = piece(CLICKS, WORDS)
    taken(marks, CLICKS, 100)
    marks.frame(WORDS, said(0, 50))
    before = marks.frozen(0)
    copy = replace(before)
    taken(marks, CLICKS, 200)
    marks.set_idle(CLICKS)
    marks.frame(WORDS, said(0, 60))
    assert before == copy
    assert before.inputs == {CLICKS: 90}
