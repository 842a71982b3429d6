"""`kstate check JOB`: all mistakes at once, exit code 2, and errors of the import in plain words."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from kstate import ConfigError, Job
from kstate.adapters.avro import AvroCodecs
from kstate.cli.check import checked
from kstate.cli.jobs import load_job
from kstate.cli.main import app

HEAD = """
from dataclasses import dataclass
from datetime import timedelta
from kstate import Context, Input, Job, Operator, Output, ValueState

@dataclass(frozen=True, slots=True)
class Line:
    text: str

class Split(Operator[None], uid="split"):
    lines = Input(Line, topic="lines")
    words = Output(Line, key="text")

    @lines.each
    def split(self, line, ctx): ...
"""

FINE = (
    HEAD
    + """
class Count(Operator[str], uid="count"):
    words = Input(Split.words)
    counts = Output(Line, topic="counts")
    seen = ValueState(int, default=0)

    @words.each
    def add(self, line, ctx): ...

job = Job("fine", [Split, Count])
number = 5
"""
)

FAULTY = (
    HEAD
    + """
class Count(Operator[int], uid="count"):
    words = Input(Split.words)
    texts = Output(list[str], topic="texts")
    seen = ValueState(dict[str, int])
    start = ValueState(int, default="none")
    other = ValueState(object)

job = Job("faulty", [Split, Count], epoch=timedelta(0))
"""
)


FULL = (
    HEAD.replace("Output, ValueState", "Output, Table, ValueState").replace("Input, Job", "Hopping, Input, Job")
    + """
from typing import NamedTuple
from kstate import ListState, MapState, PartialState, Session, Timer, TimerMap, Tumbling, WindowState

class Pair(NamedTuple):
    left: str
    right: int

@dataclass(frozen=True, slots=True)
class Total:
    n: int

    def split(self, fraction, /): return self, self
    def merge(self, other, /): return self

class Full(Operator[str], uid="full"):
    words = Input(Split.words, rekey=lambda line: line.text[:1])
    lines = Input(Line, topic="more", rekey="text")
    table = Table(Line, topic="table")
    last = ValueState(Line, ttl=timedelta(days=7))
    items = ListState(Line, ttl=timedelta(minutes=5))
    pages = MapState(Pair, int)
    total = PartialState(Total, initial=lambda: Total(0))
    n = WindowState(int, Tumbling(timedelta(seconds=30)), default=0)
    hops = WindowState(int, Hopping(timedelta(minutes=1), timedelta(seconds=10)), default=0, name="h")
    visit = WindowState(int, Session(timedelta(minutes=5)), default=0, merge=max)
    gap = Timer()
    alarms = TimerMap(Pair, clock="processing")

    @words.each
    def word(self, line, ctx): ...

    @lines.batch
    def many(self, lines, ctx): ...

    @gap.fires
    def finish(self, ctx): ...

    @alarms.fires
    def alarm(self, pair, ctx): ...

job = Job("full", [Split, Full])
"""
)

FAULTY_STATES = (
    FULL.replace("TimerMap(Pair", "TimerMap(float")
    .replace("MapState(Pair, int)", "MapState(Odd, object)")
    .replace("ListState(Line", "ListState(dict[str, int]")
    .replace("Table(Line", "Table(list[str]")
    .replace("lambda: Total(0)", "lambda: Total(1 // 0)")
    .replace("Tumbling(timedelta(seconds=30)), default=0", "Tumbling(timedelta(seconds=30)), default='none'")
    .replace('Input(Line, topic="more", rekey="text")', 'Input(list[int], topic="more", rekey=lambda numbers: "")')
    .replace("from typing", "from enum import Enum\nfrom typing")
    .replace("class Full", "class Sign(Enum):\n    PLUS = '+'\n\nclass Odd(NamedTuple):\n    sign: Sign\n\nclass Full")
)


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder with job modules, as a user's shell would be in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        del sys.modules[name]


def run(*arguments: str) -> tuple[int, str]:
    """Exit code and everything printed."""
    result = CliRunner().invoke(app, ["check", *arguments])
    return result.exit_code, result.output


def test_a_job_without_faults_is_shown_in_short(project: Path) -> None:
    """What is read, kept and written, and exit code 0."""
    project.joinpath("fine_job.py").write_text(FINE)
    code, output = run("fine_job:job")
    assert code == 0, output
    for part in ("no faults", "reads  lines  Line", "keeps  seen  int", "writes counts  Line"):
        assert part in output


def test_all_kinds_of_declarations_are_shown(project: Path) -> None:
    """What a record goes through and what is kept of it; the hops of `rekey=`, too."""
    project.joinpath("full_job.py").write_text(FULL)
    code, output = run("full_job:job")
    assert code == 0, output
    for line in (
        "  full-words-rekey  re-keys full.words",
        "    reads  full.split.words  Line",
        "    writes full.full.words  Line  key by function",
        "  full-lines-rekey  re-keys full.lines",
        "    writes full.full.lines  Line  key text",
        "  full  key str",
        "    reads  full.full.words  Line",
        "    reads  full.full.lines  Line  batches",
        "    reads  table  Line  table",
        "    keeps  last  Line, ttl 7 days",
        "    keeps  items  list of Line, ttl 0:05:00",
        "    keeps  pages  map of Pair to int",
        "    keeps  total  Total per key range",
        "    keeps  n  int per window of 0:00:30",
        "    keeps  h  int per window of 0:01:00 every 0:00:10",
        "    keeps  visit  int per session with gaps below 0:05:00",
        "    keeps  gap  event timer",
        "    keeps  alarms  processing timers by Pair",
    ):
        assert line in output.splitlines(), line
    assert "keeps  table" not in output


def test_types_of_states_are_checked(project: Path) -> None:
    """Values, keys within maps, tags, defaults and first objects; a table's record is told once, a hop's not at all."""
    project.joinpath("faulty_states.py").write_text(FAULTY_STATES)
    code, output = run("faulty_states:job")
    assert code == 2
    expected = (
        "timers 'alarms'\n    its tags: a float is no key",
        "input 'lines'\n    Type list[int] has no Avro form",
        "table 'table'\n    Type list[str] has no Avro form",
        "state 'items'\n    Type dict[str, int] has no Avro form",
        "state 'pages'\n    The schema of Odd is not legal Avro",
        "state 'pages'\n    Type object has no Avro form",
        "state 'total'\n    initial= raises ZeroDivisionError: ",
        "state 'n'\n    its default is no int",
    )
    for part in expected:
        assert part in output, output
    assert output.count("mend: ") == len(expected), output


def test_all_faults_of_wiring_and_types_are_named_with_their_mends(project: Path) -> None:
    """One run is enough to see them all."""
    project.joinpath("faulty_job.py").write_text(FAULTY)
    code, output = run("faulty_job:job")
    assert code == 2
    assert "7 faults" in output
    assert output.count("mend: ") == 7
    for part in (
        "epoch is 0:00:00",
        "it has no handler",
        "the operator's are int",
        "Type list[str] has no Avro form",
        "Type dict[str, int] has no Avro form",
        "its default is no int",
        "Type object has no Avro form",
    ):
        assert part in output


def test_faults_are_given_to_programs_too(project: Path) -> None:
    """--json: one object."""
    project.joinpath("faulty_job2.py").write_text(FAULTY)
    code, output = run("faulty_job2:job", "--json")
    result = json.loads(output)
    assert (code, result["ok"], len(result["faults"])) == (2, False, 7)
    assert set(result["faults"][0]) == {"where", "what", "mend"}


@pytest.mark.parametrize(
    ("reference", "reason"),
    [
        ("fine", "names no job"),
        ("fine:", "names no job"),
        (":job", "names no job"),
        ("nowhere:job", "There is no module 'nowhere'"),
        ("nowhere.inside:job", "There is no module 'nowhere'"),
        ("fine_job3:jobb", "its jobs are: job"),
        ("fine_job3:number", "has a int named 'number', no Job"),
        ("broken:job", "ZeroDivisionError"),
        ("needs:job", "ModuleNotFoundError: No module named 'not_installed_anywhere'"),
        ("bad syntax:job", "There is no module 'bad syntax'"),
    ],
)
def test_a_reference_that_leads_nowhere_says_where_it_ends(project: Path, reference: str, reason: str) -> None:
    """Exit code 2 and no traceback."""
    project.joinpath("fine_job3.py").write_text(FINE)
    project.joinpath("broken.py").write_text("\n1 / 0\n")
    project.joinpath("needs.py").write_text("import not_installed_anywhere\n")
    code, output = run(reference)
    assert code == 2
    assert reason in output
    assert "Traceback" not in output


def test_a_refused_option_is_shown_where_the_user_wrote_it(project: Path) -> None:
    """Its name, those that there are, and the line of the job's module, not that of kstate."""
    project.joinpath("misspelt.py").write_text(HEAD.replace('topic="lines"', 'topic="lines", event_tiem="at"'))
    with pytest.raises(ConfigError, match=r"no option event_tiem=: they are topic=, key=.*misspelt\.py:11\."):
        load_job("misspelt:job")


def test_a_broken_module_is_named_with_its_line(project: Path) -> None:
    """Where the user has to look."""
    project.joinpath("broken2.py").write_text("\n1 / 0\n")
    with pytest.raises(ConfigError, match=r"broken2\.py:2"):
        load_job("broken2:job")


def test_a_start_refuses_what_the_check_refuses(project: Path) -> None:
    """The same list, as one error."""
    project.joinpath("faulty_job4.py").write_text(FAULTY)
    with pytest.raises(ConfigError, match=r"Job 'faulty' has 7 faults") as raised:
        checked(load_job("faulty_job4:job"), AvroCodecs())
    assert "\n  7. " in str(raised.value)


def test_the_example_jobs_are_sound() -> None:
    """What we show must hold."""
    from operators.word_count import job

    assert isinstance(job, Job)
    assert [spec.uid for spec in checked(job, AvroCodecs()).operators] == ["split", "count"]


def test_a_state_that_would_come_back_changed_is_refused() -> None:
    """An Avro float keeps 7 digits; after a crash the state would be another one."""
    from tests.support.lossy import job

    with pytest.raises(ConfigError, match=r"state 'last': its values would not come back as they were: field 'x'"):
        checked(job, AvroCodecs())


FRAMED = (
    HEAD
    + """
class Count(Operator[str], uid="count"):
    raw = Input(Line, topic="raw", key_format="confluent")
    values = Input(Line, topic="values", format="confluent")
    counts = Output(Line, topic="counts", format="confluent")
    plain = Output(Line, topic="plain")

    @raw.each
    def add(self, line, ctx): ...

    @values.each
    def add_more(self, line, ctx): ...

job = Job("framed", [Count])
"""
)


def test_framed_topics_need_a_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each input and output that asks for one is named, with the setting; no registry is asked anything."""
    tmp_path.joinpath("framed_job.py").write_text(FRAMED)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delenv("KSTATE_REGISTRY", raising=False)
    missing = CliRunner().invoke(app, ["check", "framed_job:job", "--json"])
    faults = json.loads(missing.stdout)["faults"]
    assert [fault["where"].partition(", ")[2] for fault in faults] == [
        "input 'raw'",
        "input 'values'",
        "output 'counts'",
    ]
    assert all("no schema registry is set" in fault["what"] and "KSTATE_REGISTRY" in fault["mend"] for fault in faults)
    monkeypatch.setenv("KSTATE_REGISTRY", "http://127.0.0.1:1")
    assert CliRunner().invoke(app, ["check", "framed_job:job"]).exit_code == 0
    monkeypatch.setenv("KSTATE_REGISTRY", "gopher://me:secret@host")
    wrong = CliRunner().invoke(app, ["check", "framed_job:job"])
    assert (wrong.exit_code, "no URL of a schema registry" in wrong.output, "secret" in wrong.output) == (
        2,
        True,
        False,
    )


def test_the_command_says_which_release_it_is() -> None:
    """For bug reports."""
    result = CliRunner().invoke(app, ["--version"])
    assert (result.exit_code, result.output.split()[0]) == (0, "kstate")
