"""The names of all steps that exist, read from the source: what the simulation must have passed, where a crash can be.

A name is the first argument of `Step(...)`, a constant or `f"{name}-suffix"`; the second form stands for one step per
constant that is passed as `name` to `commit` or `_write` in the same package.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from functools import cache
from importlib.resources import files
from itertools import chain


@cache
def worker_steps() -> frozenset[str]:
    """Steps of a worker: its own and those of the paper's primitives, but for one that only people's commands use."""
    others = frozenset(_names_in("kstate.state", "recall.py")) - frozenset(_names("kstate.worker"))
    return frozenset(chain(_names("kstate.worker"), _names("kstate.state"))) - others


@cache
def leader_steps() -> frozenset[str]:
    """Steps of a leader: its own and those of reading control to a fresh end."""
    return frozenset(chain(_names("kstate.coordinator"), _names_in("kstate.state", "freshness.py")))


@cache
def copy_steps() -> frozenset[str]:
    """Steps of a worker that makes, or follows, a copy of a key range."""
    return frozenset(chain.from_iterable(_names_in("kstate.state", module) for module in ("freshness.py", "follow.py")))


def _names(package: str) -> Iterator[str]:
    trees = [ast.parse(f.read_text("utf-8")) for f in files(package).iterdir() if f.name.endswith(".py")]
    prefixes = sorted({name for tree in trees for name in _prefixes(tree)})
    for tree in trees:
        yield from _steps(tree, prefixes)


def _names_in(package: str, module: str) -> Iterator[str]:
    yield from _steps(ast.parse(files(package).joinpath(module).read_text("utf-8")), [])


def _steps(tree: ast.AST, prefixes: list[str]) -> Iterator[str]:
    for call in _calls(tree):
        if isinstance(call.func, ast.Name) and call.func.id == "Step" and call.args:
            match call.args[0]:
                case ast.Constant(value=str(name)):
                    yield name
                case ast.JoinedStr(values=[ast.FormattedValue(), ast.Constant(value=str(suffix))]):
                    yield from (prefix + suffix for prefix in prefixes)


def _prefixes(tree: ast.AST) -> Iterator[str]:
    for call in _calls(tree):
        if isinstance(call.func, ast.Attribute) and call.func.attr in ("commit", "_write") and call.args:
            match call.args[0]:
                case ast.Constant(value=str(name)):
                    yield name


def _calls(tree: ast.AST) -> Iterator[ast.Call]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.Call))
