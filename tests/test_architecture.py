"""The layout of the code is held by these tests; each check is proved on a small bad example first."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.architecture import (
    FUNCTION_LINES_MEDIAN,
    PUBLIC_NAMES_MAX,
    Module,
    cycles,
    impurities,
    layer_offences,
    length_offences,
    library_offences,
    median_function_length,
    modules_of,
    private_uses,
    public_names,
    unsafe_offences,
)

Recorder = Callable[[str, object], None]
ROOT = Path(__file__).parent.parent
STANDARD = frozenset(sys.stdlib_module_names)


@pytest.fixture(scope="module")
def kstate() -> list[Module]:
    """Every module of the package."""
    return modules_of(ROOT, "kstate")


@pytest.fixture(scope="module")
def everything() -> list[Module]:
    """The package, the examples, the benchmarks and the tests."""
    return modules_of(ROOT, "kstate", "operators", "benchmarks", "tests")


def module(name: str, text: str = "", *, is_package: bool = False) -> Module:
    """A module that exists only here."""
    return Module(name, text, is_package)


@pytest.mark.parametrize(
    ("importer", "target"),
    [
        ("kstate.progress", "kstate.state.backup"),
        ("kstate.state.backup", "kstate.adapters.kafka"),
        ("kstate.worker.epoch", "kstate.coordinator.leader"),
        ("kstate.coordinator.leader", "kstate.worker.epoch"),
        ("kstate.coordinator.leader", "kstate.api.job"),
        ("kstate.adapters.kafka", "kstate.state.backup"),
        ("kstate.cli.run", "kstate.testing.driver"),
        ("kstate.worker.epoch", "kstate"),
    ],
)
def test_an_import_up_or_sideways_is_found(importer: str, target: str) -> None:
    """Also inside a function, and written as `from package import module`."""
    package, _, name = target.rpartition(".")
    late = f"def f():\n    from {package} import {name}\n" if package else f"import {target}\n"
    modules = [module(importer, late), module(target)]
    (offence,) = layer_offences(modules)
    assert offence.startswith(f"{importer} (")
    assert f"imports {target} (" in offence


def test_imports_go_down_only(kstate: list[Module]) -> None:
    """Vocabulary, then interfaces and api, then state, then worker and coordinator, then the edges."""
    assert list(layer_offences(kstate)) == []


def test_a_cycle_is_found_also_through_relative_imports_and_late_ones() -> None:
    """A late import hides a cycle from Python, not from the reader."""
    ring = [
        module("kstate.state", is_package=True),
        module("kstate.state.a", "from . import b"),
        module("kstate.state.b", "def f():\n    from kstate.state.c import x"),
        module("kstate.state.c", "import kstate.state.a"),
        module("kstate.state.d", "from kstate.state import a"),
    ]
    assert list(cycles(ring)) == ["import cycle: kstate.state.a <-> kstate.state.b <-> kstate.state.c"]


def test_there_are_no_import_cycles(everything: list[Module]) -> None:
    """Every module can be read after those that it imports."""
    assert list(cycles(everything)) == []


@pytest.mark.parametrize(
    ("name", "library"),
    [
        ("kstate.worker.epoch", "confluent_kafka"),
        ("kstate.config", "pydantic_settings"),
        ("kstate.adapters.kafka", "rocksdict"),
        ("kstate.api.job", "requests"),
    ],
)
def test_a_library_outside_its_place_is_found(name: str, library: str) -> None:
    """Known libraries have one place, unknown ones none."""
    (offence,) = library_offences([module(name, f"from {library} import x")], STANDARD)
    assert offence.startswith(f"{name} imports {library}")


def test_each_library_is_imported_in_its_one_place(kstate: list[Module]) -> None:
    """A change of client or store touches one adapter."""
    assert list(library_offences(kstate, STANDARD)) == []


def test_a_function_or_module_that_is_too_long_is_found() -> None:
    """The caps count docstrings, not decorators."""
    function = "@d\ndef f():\n" + "    x = 1\n" * 70
    assert list(length_offences([module("m", function)])) == ["m.f has 71 lines, 70 are allowed"]
    assert list(length_offences([module("m", function.replace("    x = 1\n", "", 1))])) == []
    (offence,) = length_offences([module("m", "x = 1\n" * 501)])
    assert offence.startswith("m has 501 lines")


def test_functions_and_modules_keep_to_their_caps(everything: list[Module]) -> None:
    """Long units hide decisions."""
    assert list(length_offences(everything)) == []


def test_the_median_function_is_short(kstate: list[Module], record_testsuite_property: Recorder) -> None:
    """Most functions fit a glance; the figure is in the report of a run with --junitxml."""
    assert median_function_length([module("m", "def f():\n    pass\ndef g():\n    x = 1\n    y = 2\n")]) == 2.5
    found = median_function_length(kstate)
    record_testsuite_property("median lines of a function", found)
    assert found <= FUNCTION_LINES_MEDIAN, f"the median function has {found} lines"


@pytest.mark.parametrize(
    "text",
    [
        "import time",
        "from random import Random",
        "from uuid import uuid4",
        "import uuid\nuuid.uuid4()",
        "import datetime\ndatetime.datetime.now()",
        "from datetime import datetime\ndatetime.now()",
        "import os\nos.urandom(8)",
        "import numpy\nnumpy.random.rand()",
        "import threading\nthreading.Timer(1, print)",
    ],
)
def test_a_clock_or_chance_in_the_core_is_found_and_allowed_at_the_edge(text: str) -> None:
    """A simulation that cannot replay a run proves nothing."""
    (offence,) = impurities([module("kstate.worker.epoch", text)])
    assert offence.startswith("kstate.worker.epoch ")
    assert list(impurities([module("kstate.adapters.kafka", text), module("kstate.clock", text)])) == []


def test_time_and_chance_come_from_outside(kstate: list[Module]) -> None:
    """Only the clock, the adapters and the testing tools may look."""
    assert list(impurities(kstate)) == []


@pytest.mark.parametrize(
    "text", ["import pickle", "from marshal import loads", "eval('1')", "import yaml\nyaml.load(x)"]
)
def test_what_runs_data_as_code_is_found(text: str) -> None:
    """State and messages come from topics that others may write."""
    assert len(list(unsafe_offences([module("m", text)]))) == 1


def test_nothing_runs_data_as_code() -> None:
    """No pickle, no eval of what came from outside; tests may execute what they have just generated."""
    assert list(unsafe_offences(modules_of(ROOT, "kstate", "operators", "benchmarks"))) == []


def test_a_use_of_what_is_not_public_is_found() -> None:
    """Neither modules nor hidden names; public ones are free."""
    example = module("operators.x", "from kstate import Job, Hidden\nfrom kstate.worker.epoch import y\n")
    found = list(private_uses([example], ["Job"]))
    assert [offence.split(",")[0] for offence in found] == [
        "operators.x imports kstate.Hidden",
        "operators.x imports kstate.worker.epoch",
        "operators.x imports kstate.worker.epoch.y",
    ]


def test_operators_use_only_what_users_have(kstate: list[Module]) -> None:
    """The examples prove that the public names are enough; their tests may use kstate.testing."""
    (face,) = [found for found in kstate if found.name == "kstate"]
    assert list(private_uses(modules_of(ROOT, "operators"), public_names(face), ("kstate.testing",))) == []


def test_the_public_face_is_small_and_whole(kstate: list[Module]) -> None:
    """At most 25 names, each of which exists."""
    import kstate as package

    (face,) = [found for found in kstate if found.name == "kstate"]
    names = public_names(face)
    assert 0 < len(names) == len(set(names)) <= PUBLIC_NAMES_MAX
    assert [name for name in names if not hasattr(package, name)] == []
