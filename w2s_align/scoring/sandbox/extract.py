"""Which part of a response is the program.

A response may show the program, then how to use it, then what that prints; it may define a helper in a block of its
own, or give no block at all. The rules, in order:

1. Thoughts are no answer; a thought that does not end leaves none.
2. Blocks fenced by three or more backticks or tildes, marked as Python or not marked, that are Python, are candidates.
3. The program is the last block that defines what the tests call; without that, the last that defines or does more
   than show a value or call what is there. Earlier blocks that define names which it lacks come before it.
4. Without a block, the text is the program, from its first line that can begin one to its last line that still
   compiles.
"""

from __future__ import annotations

import ast
import builtins
import re
import textwrap
from collections.abc import Collection, Sequence
from dataclasses import dataclass

from w2s_align.scoring.thoughts import answer_part

_FENCE = re.compile(r"^([ \t]*)(`{3,}|~{3,})[ \t]*([^\n`]*)$")
PYTHON = {"python", "py", "python3", "python2", "ipython", "sage", ""}
"""First words of a fence's info string that mark Python; most models leave it out now and then."""
_BEGINNING = re.compile(r"^(?:def|class|import|from|@|async def|if __name__|#!|#|[A-Za-z_][\w.]*\s*=[^=])")
_MOST_CUTS = 400
"""Lines that are taken away from the end of a text without a block, in search of one that compiles."""


@dataclass(frozen=True)
class _Block:
    """One fenced block.

    Attributes:
        text: Its content, without the indentation of its fence.
        marked: Whether it is marked as Python.
        defines: Top-level names that it binds.
        uses: Names that it reads and does not bind.
        only_shows: It has nothing but expressions: usage, or output that happens to be Python.
    """

    text: str
    marked: bool
    defines: frozenset[str]
    uses: frozenset[str]
    only_shows: bool


def extract_code(text: str, names: Collection[str] = (), setup: str = "") -> str:
    """Return the program in a response; "" when there is none.

    Args:
        text: The response.
        names: Functions and classes that the tests call, where they are known.
        setup: What comes before the program; a response without a block may continue it in the middle of a function.
    """
    body = answer_part(text).replace("\r\n", "\n").replace("\r", "\n")
    fenced = _fenced(body)
    blocks = [block for item in fenced if (block := _block(*item, setup))]
    if not blocks:
        marked = [content for content, language in fenced if language in PYTHON]
        return marked[-1] if marked else ("" if fenced else _bare(body, setup))
    defining = [block for block in blocks if not block.only_shows]
    wanted = [block for block in blocks if set(names) & block.defines]
    chosen = (wanted or [b for b in defining if b.marked] or defining or [b for b in blocks if b.marked] or blocks)[-1]
    return "\n\n".join(block.text for block in [*_helpers(chosen, blocks, names, setup), chosen])


def completed(code: str, setup: str) -> str:
    """Return a program that can be compiled: the code, or set-up and code together where it only continues that."""
    if _compiles(code):
        return code
    joined = f"{setup.rstrip()}\n{code}"
    return joined if setup and _compiles(joined) else code


def called_names(tests: Sequence[str]) -> set[str]:
    """Return what tests call or pass on that they, and Python, do not define: what the program has to define."""
    used: set[str] = set()
    bound: set[str] = set()
    for test in tests:
        try:
            tree = ast.parse(test)
        except (SyntaxError, ValueError, RecursionError):
            continue
        used |= {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        bound |= _bound_anywhere(tree)
    return {name for name in used - bound if not hasattr(builtins, name)}


def _fenced(text: str) -> list[tuple[str, str]]:
    """Return content and language of every fenced block; the last may lack its end."""
    found: list[tuple[str, str]] = []
    inside: list[str] | None = None
    opened, indent, language = "", "", ""
    for line in text.split("\n"):
        match = _FENCE.match(line)
        if inside is None:
            if match:
                indent, opened, info = match.groups()
                language = (re.split(r"[\s{,:;]", info.strip(), maxsplit=1)[0] if info.strip() else "").lower()
                inside = []
        elif match and match[2].startswith(opened[0]) and len(match[2]) >= len(opened) and not match[3].strip():
            found.append((_without(inside, indent), language))
            inside = None
        else:
            inside.append(line)
    if inside is not None:
        found.append((_without(inside, indent), language))
    return found


def _without(lines: list[str], indent: str) -> str:
    """Take the indentation of the fence from a block inside a list."""
    text = "\n".join(line.removeprefix(indent) for line in lines)
    return text if _compiles(text) else textwrap.dedent(text)


def _block(text: str, language: str, setup: str) -> _Block | None:
    """Return a block that is Python, or None."""
    if language not in PYTHON or not text.strip():
        return None
    code = completed(text, setup)
    try:
        tree = ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return None
    if code != text:  # it continues the set-up
        return _Block(text, bool(language), frozenset(_bound(tree.body)), frozenset(), False)
    names = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)}
    shows = all(isinstance(node, ast.Expr | ast.Assert | ast.Pass) for node in tree.body)
    return _Block(text, bool(language), frozenset(_bound(tree.body)), frozenset(names - _bound_anywhere(tree)), shows)


def _helpers(chosen: _Block, blocks: Sequence[_Block], names: Collection[str], setup: str) -> list[_Block]:
    """Return the earlier blocks that define what the chosen one, and what it takes from them, lack."""
    missing = {name for name in chosen.uses | set(names) if not hasattr(builtins, name)} - chosen.defines
    taken: list[_Block] = []
    for block in reversed(blocks[: blocks.index(chosen)]):
        if block.only_shows or not (block.defines & missing) or (block.defines & chosen.defines):
            continue
        taken.append(block)
        missing = (missing | {name for name in block.uses if not hasattr(builtins, name)}) - block.defines
    return taken[::-1]


def _bound(body: Sequence[ast.stmt]) -> set[str]:
    """Return the names that statements bind at their own level."""
    found: set[str] = set()
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            found |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        else:
            found |= {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    return found


def _bound_anywhere(tree: ast.AST) -> set[str]:
    found = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    found |= {n.arg for n in ast.walk(tree) if isinstance(n, ast.arg)}
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.stmt)]
    return found | _bound([n for n in statements if isinstance(n, _NAMED)])


_NAMED = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom)


def _bare(text: str, setup: str) -> str:
    """Return the program in a text without a block: from where one can begin to where it ends to compile."""
    if _compiles(completed(text, setup)):
        return text
    lines = text.split("\n")
    starts = [0] if text[:1] in " \t" and setup else []
    starts += [number for number, line in enumerate(lines) if _BEGINNING.match(line)][:1]
    for start in starts:
        for end in range(len(lines), max(start, len(lines) - _MOST_CUTS), -1):
            part = "\n".join(lines[start:end])
            if part.strip() and _compiles(completed(part, setup)):
                return part
    return text


def _compiles(code: str) -> bool:
    try:
        ast.parse(code)
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    return True
