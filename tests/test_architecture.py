"""The rooms of the package: who may import whom, no circle of imports, and no mention of what does not exist."""

from __future__ import annotations

import ast
import builtins
import io
import re
import tokenize
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "w2s_align"

GROUND = {"errors", "files", "hub", "machine", "processes", "ray_connection", "records", "shards"}
"""Modules that every room may import; they import each other alone."""

DOMAIN: dict[str, set[str]] = {
    "lab": set(),
    "families": {"lab"},
    "generation": {"families"},
    "scoring": {"families", "generation", "lab"},
    "pairing": {"scoring"},
    "responses": {"pairing", "scoring"},
    "interchange": {"lab", "pairing"},
    "training": {"families", "scoring"},
    "evaluation": {"generation", "interchange", "scoring"},
    "reporting": {"evaluation", "lab", "pairing", "scoring"},
}
"""The library: rooms that know nothing of recipes, artifacts, steps and runs, and which of each other they know."""

ROOMS: dict[str, set[str]] = {
    **DOMAIN,
    "recipe": set(),
    "artifacts": {"recipe"},
    "steps": {"recipe", "artifacts", *DOMAIN},
    "estimates": {"recipe", "artifacts", "steps", "evaluation", "families", "generation", "training"},
    "runs": {"recipe", "artifacts", "steps"},
    "cluster": {"recipe", "artifacts", "runs"},
    "rehearsal": {"recipe", "artifacts", "steps", "evaluation", "families"},
    "terminal": {
        *("recipe", "artifacts", "steps", "estimates", "runs", "cluster", "rehearsal"),
        *("evaluation", "pairing", "reporting"),  # what it shows of results, pairs and pages
    },
    "cli": {"recipe", "artifacts", "estimates", "runs", "cluster", "terminal"},
    "__init__": {"runs"},
}
"""Who may import whom, besides the ground."""


class Import(NamedTuple):
    """An import of one module of the package by another."""

    module: str
    line: int
    target: str
    for_types: bool


@cache
def trees() -> dict[str, ast.Module]:
    """Return the syntax tree of every module, by its name without ``w2s_align.``."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


@cache
def imports() -> list[Import]:
    """Return every import within the package, also those inside functions."""
    found = []
    for module, tree in trees().items():
        guarded = [
            node for node in ast.walk(tree) if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)
        ]
        types = {id(inner) for guard in guarded for inner in ast.walk(guard)}
        for node in ast.walk(tree):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert not node.level, f"{module}:{node.lineno}: imports are absolute"
                whole = [f"{node.module}.{alias.name}" for alias in node.names]
                names = [name if name.removeprefix("w2s_align.") in trees() else str(node.module) for name in whole]
            for name in names:
                if name == "w2s_align" or name.startswith("w2s_align."):
                    target = name.removeprefix("w2s_align").removeprefix(".") or "__init__"
                    found.append(Import(module, node.lineno, target, id(node) in types))
    return found


def room(module: str) -> str:
    return module.partition(".")[0]


def circles(edges: Mapping[str, set[str]]) -> list[set[str]]:
    """Return the groups that reach each other (Tarjan's strongly connected components of more than one)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[set[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in edges.get(node, ()):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            group = set(stack[stack.index(node) :])
            del stack[stack.index(node) :]
            if len(group) > 1:
                found.append(group)

    for node in edges:
        if node not in index:
            visit(node)
    return found


def test_every_room_is_in_the_table() -> None:
    assert {room(module) for module in trees()} == {*ROOMS, *GROUND}


def test_rooms_import_only_what_the_table_allows() -> None:
    wrong = []
    for found in imports():
        me, other = room(found.module), room(found.target)
        allowed = GROUND | ({me} if me in GROUND else {me, *ROOMS[me]})
        if other not in allowed:
            wrong.append(f"w2s_align/{found.module.replace('.', '/')}:{found.line} imports {found.target}")
    assert not wrong, "\n".join(wrong)


def test_the_table_allows_nothing_that_nobody_imports() -> None:
    used = {(room(found.module), room(found.target)) for found in imports()}
    assert {(me, other) for me, others in ROOMS.items() for other in others} <= used


def test_no_modules_import_each_other_in_a_circle() -> None:
    edges: dict[str, set[str]] = {}
    for found in imports():
        if not found.for_types:
            edges.setdefault(found.module, set()).add(found.target)
    assert circles(edges) == []


def test_no_rooms_know_each_other_both_ways() -> None:
    edges: dict[str, set[str]] = {}
    for found in imports():
        if room(found.module) != room(found.target):
            edges.setdefault(room(found.module), set()).add(room(found.target))
    assert circles(edges) == []


FILE = re.compile(r"(?<![\w/.<*}-])(?:[\w-]+/)*[\w.-]*\w\.(?:md|py)\b(?![\w(])")
ROLE = re.compile(r":(?:mod|class|func|meth|attr|data|exc):`~?([^`<]+)`")
DOTTED = re.compile(r"\bw2s_align(?:\.\w+)+")
ADDRESS = re.compile(r"https?://\S+|\S+@\S+|git\+\S+")


@cache
def names() -> set[str]:
    """Return the full name of every module, class, function, method, attribute and constant of the package."""
    found = {"w2s_align"}

    def add(body: list[ast.stmt], prefix: str) -> None:
        for node in body:
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                found.add(f"{prefix}.{node.name}")
                if isinstance(node, ast.ClassDef):
                    add(node.body, f"{prefix}.{node.name}")
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = node.targets if isinstance(node, ast.Assign) else [node.target]
                found.update(f"{prefix}.{t.id}" for t in targets if isinstance(t, ast.Name))
            elif isinstance(node, ast.ImportFrom | ast.Import):
                found.update(f"{prefix}.{alias.asname or alias.name}" for alias in node.names)
            elif isinstance(node, ast.If | ast.Try):
                add(node.body, prefix)

    for module, tree in trees().items():
        full = "w2s_align" if module == "__init__" else f"w2s_align.{module}"
        found.add(full)
        add(tree.body, full)
    return found


@cache
def last_parts() -> set[str]:
    """Return every way to write the end of a name: ``base.EngineRun``, ``EngineRun``."""
    return {".".join(parts[i:]) for name in names() for parts in [name.split(".")] for i in range(len(parts))}


@cache
def files() -> set[str]:
    """Return every way to write the end of a path of the repository: ``runs/status.py``, ``status.py``."""
    folders = ("w2s_align", "docs", "recipes", "scripts", "tests")
    paths = [*ROOT.glob("*.*"), *(path for folder in folders for path in (ROOT / folder).rglob("*.*"))]
    listed = [path.relative_to(ROOT).parts for path in paths if path.is_file()]
    return {"/".join(parts[i:]) for parts in listed for i in range(len(parts))}


@cache
def written_files() -> set[str]:
    """Return names of files as code writes them (``work.out / "report.md"``): they are where a run has made them."""
    found = set()
    for tree in trees().values():
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " not in node.value:
                found.add(node.value.rpartition("/")[2])
    return found


def texts() -> Iterator[tuple[Path, int, str]]:
    """Yield every comment, string and line of text in which something may be mentioned, with file and line."""
    for folder in (PACKAGE, ROOT / "scripts"):
        for path in sorted(folder.rglob("*.py")):
            for token in tokenize.generate_tokens(io.StringIO(path.read_text(encoding="utf-8")).readline):
                if (
                    token.type in (tokenize.COMMENT, tokenize.STRING)
                    or tokenize.tok_name[token.type] == "FSTRING_MIDDLE"
                ):
                    yield path, token.start[0], token.string
    for path in [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "recipes").rglob("*.md")]:
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
            yield path, number, line


def missing(text: str, here: Path) -> Iterator[str]:
    """Yield what a text mentions and nobody can open."""
    text = ADDRESS.sub(" ", text)
    for found in FILE.finditer(text):
        name = found[0].removeprefix("./")
        known = name in files() or name.rpartition("/")[2] in written_files()
        if not known and not (here.parent / name).exists() and not _is_in_library(name):
            yield name
    for found in ROLE.finditer(text):
        name = found[1].lstrip(".").removesuffix("()")
        outside = name.partition(".")[0]
        if name not in last_parts() and not (
            outside != "w2s_align" and (hasattr(builtins, name) or _is_library(outside))
        ):
            yield found[0]
    for found in DOTTED.finditer(text):
        parts = found[0].split(".")
        exported = any(
            ".".join(parts[:i]) in names() and ".".join(parts[i - 1 :]) in last_parts() for i in range(2, len(parts))
        )
        if found[0] not in names() and not exported:
            yield found[0]


def _is_in_library(name: str) -> bool:
    """Return whether a path is that of a file of an installed library: ``trl/trainer/utils.py``."""
    library, _, rest = name.partition("/")
    spec = find_spec(library) if rest and library.isidentifier() else None
    return spec is not None and any((Path(place) / rest).is_file() for place in spec.submodule_search_locations or ())


@cache
def _is_library(name: str) -> bool:
    return find_spec(name) is not None


@pytest.mark.parametrize("script", sorted((ROOT / "scripts").glob("*.py")), ids=lambda path: path.name)
def test_what_a_script_imports_is_there(script: Path) -> None:
    """Most of them are run by slow tests alone, or by hand."""
    for node in ast.walk(ast.parse(script.read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == PACKAGE.name:
            module = import_module(str(node.module))
            for name in node.names:
                assert hasattr(module, name.name) or find_spec(f"{node.module}.{name.name}"), f"line {node.lineno}"


def test_nothing_is_mentioned_that_does_not_exist() -> None:
    lost = [f"{p.relative_to(ROOT)}:{line} mentions {name}" for p, line, text in texts() for name in missing(text, p)]
    assert not lost, "\n".join(lost)


@pytest.mark.parametrize(
    ("text", "lost"),
    [
        ("see runs/status.py and :class:`~.executor.Executor`, README.md", []),
        ("(delta_learning_7.md 7.3)", ["delta_learning_7.md"]),
        ("training/no_such_file.py", ["training/no_such_file.py"]),
        (":func:`~w2s_align.runs.plan.plam`", [":func:`~w2s_align.runs.plan.plam`", "w2s_align.runs.plan.plam"]),
        (":class:`datasets.Dataset`, :exc:`ValueError`, https://github.com/x/y/blob/main/z.py", []),
        ("`w2s_align.nowhere`", ["w2s_align.nowhere"]),
    ],
)
def test_a_mention_of_nothing_is_found(text: str, lost: list[str]) -> None:
    assert list(missing(text, PACKAGE / "x.py")) == lost
