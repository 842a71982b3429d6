"""The documents say what is true of the code: names, steps, fields, bytes and links are compared with it."""

import re
from datetime import timedelta
from pathlib import Path

import pytest

import kstate
from kstate.keyspace import FULL_RANGE, slot_of
from kstate.messages import (
    Control,
    Heartbeat,
    JobHalted,
    LeaderBeat,
    Order,
    OrderAnswered,
    OrderKind,
    PlanPublished,
    ProcessExited,
    Report,
    TermStarted,
    TilePhase,
    TileReport,
    WorkerDied,
)
from kstate.plan import Member, Plan, Registry, Shard, Tile
from kstate.state.blocks import Block, decode_frame
from kstate.state.checkpoint import Changes, EpochEnd, PieceId, checkpoint
from kstate.state.layout import key_suffix
from kstate.state.lineage import Lineage
from kstate.state.markers import Marker, encode_marker
from kstate.state.values import value_prefix
from kstate.strict_json import load
from kstate.testing import Driver
from kstate.wire import encode_control, encode_report
from operators import records

ROOT = Path(__file__).parents[2]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text()
SOURCES = [path for path in (ROOT / "kstate").rglob("*.py") if "testing" not in path.parts]
DOCUMENTS = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "operators").rglob("*.md")]

SHARD = Shard("count", 0)
MESSAGES: list[Control | Report] = [
    TermStarted(1, "l"),
    WorkerDied(1, "w-1", "why"),
    JobHalted(1, "why", 2),
    PlanPublished(
        Plan("app", 1, 1, (Member("w", "w-1"),), (), (Tile(SHARD, FULL_RANGE, "w-1", 1),), Registry(), {}, {}), "why"
    ),
    Heartbeat("w-1", "w", "h", 1, 1, 1, (TileReport(SHARD, FULL_RANGE, 1, TilePhase.RUNNING, 1, {}),)),
    ProcessExited("w-1", -9),
    LeaderBeat(1, "l"),
    OrderAnswered(1, "1f3a", False, "why"),
    Order("1f3a", OrderKind.REBALANCE),
]


def section(number: int) -> str:
    """The text of a numbered section of ARCHITECTURE.md."""
    start = ARCHITECTURE.index(f"\n## {number}. ")
    end = ARCHITECTURE.find(f"\n## {number + 1}. ")
    return ARCHITECTURE[start : end if end >= 0 else None]


def steps_in_code() -> set[str]:
    """Every step name that an actor may take, those made of a prefix too."""
    text = "\n".join(path.read_text() for path in SOURCES)
    prefixes = set(re.findall(r'_write\(\s*"([a-z-]+)"', text))
    names = set(re.findall(r'Step\("([a-z-]+)"', text))
    suffixes = set(re.findall(r'Step\(f"\{name\}-([a-z]+)"', text))
    return names | {f"{prefix}-{suffix}" for prefix in prefixes for suffix in suffixes}


def test_every_step_of_a_protocol_is_explained() -> None:
    """Section 7 says of each named step what a crash there means; a new step without an entry fails here."""
    told = set(re.findall(r"`([a-z-]+)`", section(7)))
    assert steps_in_code() - told == set()


def test_every_explained_step_exists() -> None:
    """The first column of the tables names steps that actors really take."""
    rows = re.findall(r"^\| (`[^|]+) \|", section(7), re.MULTILINE)
    told = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert len(told) > 30
    assert told - steps_in_code() == set()


def test_the_example_frames_are_what_the_code_writes() -> None:
    """The bytes of section 5 are those of `checkpoint`, and can be read."""
    found = re.search(r"^block +([0-9a-f\s]+)^marker +([0-9a-f\s]+)^```", ARCHITECTURE, re.MULTILINE)
    assert found
    block, marker = (bytes.fromhex("".join(text.split())) for text in found.groups())
    changes = Changes([key_suffix(slot_of(b"a"), 1, b"a")], [value_prefix(1) + b"\x02"])
    made = checkpoint(PieceId(1, 0, FULL_RANGE), changes, Lineage(), EpochEnd("w-1", 1, {"lines": 7}))
    assert made.blocks == [block]
    assert encode_marker(made.marker) == marker
    assert isinstance(decode_frame(block), Block)
    assert isinstance(decode_frame(marker), Marker)


def test_the_layouts_are_those_of_the_modules() -> None:
    """Each row "offset size field" of sections 5 and 8 stands, with the same numbers, in a module that writes it."""
    names = ("state/frames", "state/blocks", "state/markers", "state/values", "state/lineage", "worker/stream_frames")
    modules = "\n".join((ROOT / "kstate" / f"{name}.py").read_text() for name in (*names, "adapters/avro_frames"))
    row = r" *(\d{1,2}(?:\+\d+n)?) +(\d{1,2}n?)  ([a-z]+)"
    told = set(re.findall(rf"(?:^|  ){row}", section(5) + section(8), re.MULTILINE))
    assert len(told) > 25
    assert told - set(re.findall(rf"^{row}", modules, re.MULTILINE)) == set()


@pytest.mark.parametrize("message", MESSAGES, ids=lambda message: type(message).__name__)
def test_the_fields_of_messages_are_those_on_the_wire(message: Control | Report) -> None:
    """Section 5 lists, for each kind of message, exactly the fields that stand in its JSON."""
    encode = encode_report if isinstance(message, Report) else encode_control
    fields = load(encode(message), "message")  # type: ignore[arg-type]
    fields.whole("v")
    kind = fields.text("kind")
    listed = re.search(rf"(?:^|  ){kind} +((?:[a-z_]+(?: \([^)]*\))?, )*[a-z_]+)", section(5), re.MULTILINE)
    assert listed
    told = set(re.sub(r" \([^)]*\)", "", listed[1]).split(", "))
    assert told == set(fields._rest)


def test_named_modules_exist() -> None:
    """A path in any document leads somewhere."""
    packages = "|".join(path.name for folder in (ROOT, ROOT / "kstate") for path in folder.iterdir() if path.is_dir())
    pattern = rf"`((?:{packages})/[a-z_./]*)`"
    named = [(document, path) for document in DOCUMENTS for path in re.findall(pattern, document.read_text())]
    assert [
        f"{document.name}: {path}"
        for document, path in named
        if not any((base / path).exists() for base in (ROOT, ROOT / "kstate", document.parent))
    ] == []


def test_every_package_is_on_the_code_map() -> None:
    """Section 3 has a row for each package of kstate, and names each module of its pure parts."""
    told = section(3)
    packages = [path.parent.name for path in (ROOT / "kstate").glob("*/__init__.py")]
    assert [name for name in packages if f"`kstate/{name}/`" not in told] == []
    modules = [*(ROOT / "kstate").glob("*.py"), *(ROOT / "kstate" / "state").glob("*.py")]
    names = [path.stem for path in modules if not path.stem.startswith("__")]
    assert [name for name in names if f"`{name}`" not in told and f"{name}.py" not in told] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    """Links between documents, and to headings within one, are not broken."""
    text = document.read_text()
    headings = {_anchor(title) for title in re.findall(r"^#+ (.*)$", text, re.MULTILINE)}
    for target in re.findall(r"\]\(([^)]+)\)", text):
        if target.startswith("#"):
            assert target[1:] in headings
        elif "://" not in target:
            assert (document.parent / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_make_targets_in_documents_exist(document: Path) -> None:
    """`make something` in a document is a target of the Makefile."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"(?:`|^\$? ?)make ([a-z]+)", document.read_text(), re.MULTILINE))
    assert named - targets == set()


def _anchor(title: str) -> str:
    """How GitHub names a heading in links."""
    return re.sub(r"[^a-z0-9 _-]", "", title.lower()).replace(" ", "-")


def run_examples(name: str, code: list[str]) -> list[str]:
    """Execute blocks of a document as one module with all public names, then its tests; the tests' names."""
    names: dict[str, object] = {**vars(kstate), **vars(records), "Driver": Driver, "timedelta": timedelta}
    names["__name__"] = name
    for block in code:
        exec(compile(block, name, "exec"), names)
    tests = {name: value for name, value in names.items() if name.startswith("test_")}
    for test in tests.values():
        assert callable(test)
        test()
    return list(tests)


def test_the_code_of_the_readme_runs() -> None:
    """Its operators make a job without faults, and its test passes."""
    code = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL)
    assert len(run_examples("readme", code)) == 1


def test_the_code_of_coming_from_other_tools_runs() -> None:
    """Under each heading "kstate" stands a job and its test; that of the others is theirs."""
    text = (ROOT / "docs" / "coming-from.md").read_text()
    own = re.findall(r"^### kstate$(.*?)^##", text, re.MULTILINE | re.DOTALL)
    ran = [
        run_examples("coming_from", re.findall(r"^```python\n(.*?)^```", part, re.MULTILINE | re.DOTALL))
        for part in own
    ]
    assert ran == [["test_words_are_counted_per_window"], ["test_orders_meet_their_customers"]]
