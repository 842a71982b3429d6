"""What a new version of a job may change, and what is refused: by its text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from kstate.coordinator.continuity import changes, check_continues, extended_registry
from kstate.description import InputDescription, JobDescription, OperatorDescription, StateDescription
from kstate.errors import ConfigError
from kstate.plan import Plan, Registry
from tests.support.leaders import COUNT, JOB, SPLIT, WORDS

SEEN = '{"fields":[{"name":"n","type":"long"}],"name":"Seen","type":"record"}'
SEEN_MORE = (
    '{"fields":[{"name":"n","type":"long"},{"default":"","name":"last","type":"string"}],"name":"Seen","type":"record"}'
)
SEEN_LESS = '{"fields":[{"name":"n","type":"int"},{"name":"at","type":"long"}],"name":"Seen","type":"record"}'
SEEN_NONE = '{"fields":[],"name":"Seen","type":"record"}'


def job(*operators: OperatorDescription, dropped: tuple[str, ...] = ()) -> JobDescription:
    """A version of the job."""
    return JobDescription("app", operators, dropped)


def count(*states: StateDescription, **changed: Any) -> OperatorDescription:
    """The operator that counts, with other states."""
    return replace(COUNT, states=states, **changed)


def a_plan(*versions: JobDescription, complete: bool = False, before: Registry | None = None) -> Plan:
    """The plan after these versions of the job ran one after the other."""
    registry = before or Registry()
    for version in versions:
        registry = extended_registry(version, registry)
    starts: Mapping[tuple[str, str, int], int] = {
        (o.uid, i.topic, 0): 0 for o in versions[-1].operators for i in o.inputs
    }
    return Plan("app", 7, 1, (), (), (), registry, {}, starts, complete=complete, build=versions[-1].build)


N = StateDescription("n", '"long"')
SEEN_STATE = StateDescription("seen", SEEN)
V1 = job(SPLIT, count(N, SEEN_STATE))


# ids


def test_ids_are_allotted_by_name_and_kept() -> None:
    """New states get new ids whatever the order of declaration."""
    first = extended_registry(JOB, Registry())
    assert (first.operators, first.states) == ({"split": 1, "count": 2}, {("count", "n"): 1})
    assert first.schemas == {1: '"long"'}
    assert first.keys == {"split": "none", "count": "string"}
    assert first.written == {("count", "n"): (1,)}
    assert first.forms == {("count", "n"): "value"}
    more = count(StateDescription("a", '"string"'), StateDescription("b", '"long"', "list"), N)
    second = extended_registry(job(more, SPLIT), first)
    assert second.operators == {"split": 1, "count": 2}
    assert second.states == {("count", "n"): 1, ("count", "a"): 2, ("count", "b"): 3}
    assert second.schemas == {1: '"long"', 2: '"string"'}
    assert second.forms["count", "b"] == "list"


def test_an_id_that_was_dropped_is_never_given_again() -> None:
    """Neither to another name nor to the same one: what it stored must not come back as something else's state."""
    first = extended_registry(V1, Registry())
    without = extended_registry(job(SPLIT, count(N)), first)
    assert without.states == {("count", "n"): 1}
    assert without.retired == (("count", "seen", 2),)
    again = extended_registry(V1, without)
    assert again.states == {("count", "n"): 1, ("count", "seen"): 3}
    gone = extended_registry(job(count(N)), again)
    assert gone.operators == {"count": 2}
    back = extended_registry(V1, gone)
    assert back.operators == {"count": 2, "split": 3}
    assert back.retired == (("count", "seen", 2), ("split", "", 1), ("count", "seen", 3))
    assert back.states["count", "seen"] == 4
    newest_gone = extended_registry(job(count(N, SEEN_STATE)), back)
    assert extended_registry(V1, newest_gone).operators == {"count": 2, "split": 4}


def test_the_schemas_of_a_state_are_remembered_in_order() -> None:
    """Whatever any version wrote may still lie in the backup; a schema that comes back is the newest again."""
    registry = a_plan(V1, job(SPLIT, count(N, replace(SEEN_STATE, schema=SEEN_MORE))), V1).registry
    assert registry.written["count", "seen"] == (3, 2)
    assert {registry.schemas[2], registry.schemas[3]} == {SEEN, SEEN_MORE}


def test_the_records_of_internal_streams_are_known_by_topic() -> None:
    """They carry no id of their own."""
    split = replace(SPLIT, outputs=(replace(SPLIT.outputs[0], schema='"bytes"'),))
    registry = extended_registry(job(split, COUNT), Registry())
    assert registry.schemas[registry.streams[WORDS]] == '"bytes"'


# what is refused


REFUSED: list[tuple[JobDescription, JobDescription, list[str]]] = [
    (
        V1,
        job(SPLIT, count(N)),
        ["state 'seen' of operator 'count' vanished", "keeps name='seen'", "dropped=['count.seen']"],
    ),
    (
        V1,
        job(SPLIT, count(N, replace(SEEN_STATE, name="saw"))),
        ["state 'seen' of operator 'count' vanished: a renamed one keeps name='seen'"],
    ),
    (
        V1,
        job(count(N, SEEN_STATE)),
        ["operator 'split' is no longer in the job", "keeps its uid='split'", "dropped=['split']"],
    ),
    (
        V1,
        job(SPLIT, count(N, SEEN_STATE), dropped=("count.seen",)),
        ["'count.seen' is in dropped=[…] and in the job"],
    ),
    (V1, job(SPLIT, count(N, SEEN_STATE), dropped=("split",)), ["'split' is in dropped=[…] and in the job"]),
    (
        V1,
        job(SPLIT, count(N, SEEN_STATE, key_type="long")),
        ["the key of operator 'count' was string and is long now", "another uid and drop 'count'"],
    ),
    (
        V1,
        job(SPLIT, count(N, replace(SEEN_STATE, form="list"))),
        ["state 'seen' of operator 'count' was a value and is a list now", "drop 'count.seen'"],
    ),
    (
        job(SPLIT, count(StateDescription("m", '"long"', "map by string"))),
        job(SPLIT, count(StateDescription("m", '"long"', "map by long"))),
        ["state 'm' of operator 'count' was a map by string and is a map by long now"],
    ),
    (
        V1,
        job(SPLIT, count(N, replace(SEEN_STATE, schema=SEEN_LESS))),
        [
            f"state 'seen' of operator 'count' has schema {SEEN_LESS}",
            f"cannot read what was stored with {SEEN}",
            "field 'n' was long and is int now: larger numbers would not fit",
            "field 'at' is new and has no default",
        ],
    ),
    (
        V1,
        job(SPLIT, count(StateDescription("n", '"double"'), SEEN_STATE)),
        ['has schema "double", which cannot read what was stored with "long"', "Avro would allow it, but a double"],
    ),
    (
        job(replace(SPLIT, outputs=(replace(SPLIT.outputs[0], schema=SEEN),)), COUNT),
        job(replace(SPLIT, outputs=(replace(SPLIT.outputs[0], schema=SEEN_MORE),)), COUNT),
        [
            "records under way in stream 'words' of operator 'split' have schema",
            SEEN,
            f"the job reads and writes {SEEN_MORE}",
            "--until-end",
        ],
    ),
]


@pytest.mark.parametrize(("before", "after", "texts"), REFUSED, ids=[texts[0][:48] for _, _, texts in REFUSED])
def test_what_would_lose_state_is_refused(before: JobDescription, after: JobDescription, texts: list[str]) -> None:
    """The error names the thing, what it was and is, and the mend."""
    with pytest.raises(ConfigError) as caught:
        check_continues(after, a_plan(before))
    message = str(caught.value)
    for text in [*texts, "Job 'app' does not continue what plan 7 stands for; nothing was changed", "Mend:"]:
        assert text in message


def test_every_reason_is_listed_at_once() -> None:
    """One deployment mends them all."""
    with pytest.raises(ConfigError) as caught:
        check_continues(job(count(StateDescription("n", '"int"'))), a_plan(V1))
    assert [line[:4] for line in str(caught.value).splitlines()[1:4]] == ["  1.", "  2.", "  3."]


def test_every_schema_that_was_ever_written_counts() -> None:
    """Version 3 can read version 2, whose values are long, but not version 1, whose values are still in the backup."""
    first = job(SPLIT, count(StateDescription("seen", SEEN_NONE)))
    with_default = SEEN_MORE.replace('{"name":"n","type":"long"},', "")
    second = job(SPLIT, count(StateDescription("seen", with_default)))
    third = job(SPLIT, count(StateDescription("seen", with_default.replace('"default":"",', ""))))
    check_continues(second, a_plan(first))
    check_continues(third, a_plan(second))
    with pytest.raises(ConfigError, match="field 'last' is new and has no default"):
        check_continues(third, a_plan(first, second))


def test_a_plan_of_an_older_release_continues_with_the_same_schemas_only() -> None:
    """It does not say which schemas a state was written with, so the first start must be with those it had; defaults,
    which that release left out, are no difference.
    """
    older = a_plan(job(SPLIT, count(N, replace(SEEN_STATE, schema=SEEN_MORE.replace('"default":"",', "")))))
    older = replace(older, registry=replace(older.registry, written={}, forms={}))
    same = job(SPLIT, count(N, replace(SEEN_STATE, schema=SEEN_MORE)))
    check_continues(same, older)
    assert extended_registry(same, older.registry).written == {("count", "n"): (1,), ("count", "seen"): (2, 3)}
    with pytest.raises(ConfigError, match="of an older release, does not say what was stored"):
        check_continues(V1, older)


# what is allowed

ALLOWED: list[tuple[JobDescription, JobDescription, list[str]]] = [
    (V1, V1, []),
    (V1, job(SPLIT, count(N, SEEN_STATE, StateDescription("m", '"long"'))), ["new: state 'm' of 'count'"]),
    (V1, job(SPLIT, *V1.operators[1:], replace(SPLIT, uid="third")), ["new: operator 'third'"]),
    (
        V1,
        job(SPLIT, count(N, replace(SEEN_STATE, schema=SEEN_MORE))),
        ["state 'seen' of 'count' has a new schema"],
    ),
    (
        V1,
        job(SPLIT, count(N, replace(SEEN_STATE, schema=SEEN_NONE))),
        ["state 'seen' of 'count' has a new schema, which leaves out n"],
    ),
    (V1, job(SPLIT, count(N), dropped=("count.seen",)), ["state 'seen' of 'count' is dropped"]),
    (
        V1,
        job(count(N, SEEN_STATE, inputs=(InputDescription("words", "words"),)), dropped=("split",)),
        [
            "new: topic 'words' read by 'count'",
            "operator 'split' is dropped; its topic app.split.backup stays",
            f"'count' no longer reads topic '{WORDS}': its progress there is left out",
        ],
    ),
    (
        V1,
        job(replace(SPLIT, inputs=(*SPLIT.inputs, InputDescription("more", "pages"))), *V1.operators[1:]),
        ["new: topic 'pages' read by 'split'"],
    ),
    (V1, job(*V1.operators, dropped=("long.gone", "never")), []),
]


@pytest.mark.parametrize(("before", "after", "said"), ALLOWED, ids=[str(n) for n in range(len(ALLOWED))])
def test_what_continues_is_told(before: JobDescription, after: JobDescription, said: list[str]) -> None:
    """The reason of the next plan says what changes, and what becomes of what is gone."""
    plan = a_plan(before)
    check_continues(after, plan)
    assert changes(after, plan) == said


def test_a_stream_that_is_empty_may_change() -> None:
    """A bounded run that is complete has read all that was under way."""
    before, after, _ = REFUSED[-1]
    check_continues(after, a_plan(before, complete=True))


def test_what_was_dropped_once_need_not_be_named_for_ever() -> None:
    """The plan knows it."""
    without = job(SPLIT, count(N), dropped=("count.seen",))
    check_continues(job(SPLIT, count(N)), a_plan(V1, without))


def test_a_build_is_what_the_description_says() -> None:
    """Equal descriptions have equal builds, in every process; whatever is stored or wired otherwise makes another."""
    assert V1.build == job(*V1.operators).build
    assert len(V1.build) == 8
    others = {version.build for _, version, _ in [*REFUSED, *ALLOWED]}
    assert len(others | {V1.build}) == len({version for _, version, _ in [*REFUSED, *ALLOWED]} | {V1})
