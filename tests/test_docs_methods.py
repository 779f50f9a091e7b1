"""The pages under docs/ say what exists: recipes, steps, options, links and commands are held against the package."""

from __future__ import annotations

import functools
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from w2s_align.cli import app
from w2s_align.steps import CATALOGUE
from w2s_align.terminal.catalogue import shipped_recipes

ROOT = Path(__file__).parents[1]
METHODS = ROOT / "docs" / "methods"
INDEX = METHODS / "README.md"
PAGES = sorted(page for page in METHODS.glob("*.md") if page != INDEX)
EVERY = [*PAGES, INDEX, ROOT / "docs" / "upstream.md"]
SECTIONS = [
    "Sources",
    "Idea",
    "Formulas",
    "Settings in the source",
    "Published numbers",
    "Not found",
    "In this toolkit",
]
"""What every page has, in this order; then how far it is built."""
STATES = ["Runs today", "Trial runs", "Not built yet"]
PLANNED = "Not built yet"
ELSEWHERE = {"configs", "scripts", "lab", "reasoning_gym", "lm_eval"}
"""First parts of names that are no recipes: folders of the sources' repositories, and kinds of tasks."""
WITH_RECIPE = {"run", "plan", "rehearse", "sweep"}
"""Commands whose first argument is a recipe."""

LINK = re.compile(r"\]\(([^)\s]+)\)")
NAME = re.compile(r"`([a-z0-9_]+/[a-z0-9_]+)`")
STEP = re.compile(r"\bsteps? `([a-z_]+)`|`([a-z_]+)` steps?\b|\bkind: ([a-z_]+)")
RULE = re.compile(r"[`,{\n]\s*rule: ([a-z_]+)")
FENCE = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)

recipes = set(shipped_recipes())
every_page = pytest.mark.parametrize("page", EVERY, ids=[page.stem for page in EVERY])
method_page = pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])


def sections(page: Path) -> dict[str, str]:
    """Return the text under each heading of the second level; "" for what stands before the first."""
    parts = re.split(r"^## (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {"": parts[0], **dict(zip(parts[1::2], parts[2::2], strict=True))}


def fences(page: Path, language: str) -> list[str]:
    """Return the fenced blocks of a language that do not stand under "Not built yet"."""
    text = "\n".join(part for heading, part in sections(page).items() if heading != PLANNED)
    return [block for name, block in FENCE.findall(text) if name == language]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@functools.cache
def the_command() -> Any:
    """Return `w2s` as the group of commands that typer makes of it."""
    return typer.main.get_command(app)


@functools.cache
def pair_rules() -> set[str]:
    """Return the rules that step `pair` takes, wherever its JSON schema names them."""
    found: set[str] = set()

    def walk(node: Any) -> None:
        if isinstance(node, dict):
            rule = node.get("properties", {}).get("rule", {})
            found.update(rule.get("enum", [rule["const"]] if "const" in rule else []))
            for value in node.values():
                walk(value)
        elif isinstance(node, list):
            for value in node:
                walk(value)

    walk(CATALOGUE["pair"].model_json_schema())
    return found


def test_the_index_lists_every_page() -> None:
    linked = set(LINK.findall(INDEX.read_text(encoding="utf-8")))
    assert {page.name for page in PAGES} <= linked
    assert len(PAGES) == 26


@method_page
def test_a_page_has_the_fixed_sections_in_order(page: Path) -> None:
    found = list(sections(page))[1:]
    states = found[len(SECTIONS) :]
    assert found[: len(SECTIONS)] == SECTIONS
    assert states == [state for state in STATES if state in states]
    assert {"Runs today", PLANNED} & set(states)


@method_page
def test_a_page_names_a_paper_or_its_sources(page: Path) -> None:
    assert re.search(r"https://(arxiv\.org/abs/\d{4}\.\d{5}|github\.com/\S+/\S+)", page.read_text(encoding="utf-8"))


@every_page
def test_every_relative_link_resolves(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        place = (page.parent / file).resolve() if file else page
        assert place.is_file() and place.is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(place), target


@every_page
def test_named_recipes_exist_unless_they_are_not_built_yet(page: Path) -> None:
    for heading, text in sections(page).items():
        named = {name for name in NAME.findall(text) if name.split("/")[0] not in ELSEWHERE}
        if heading == PLANNED:
            built = named & recipes
            assert not built, f"{page.name} says that {built} are not built; they are: name them under Runs today"
        else:
            assert named <= recipes, f"{page.name} names {named - recipes}"


@every_page
def test_named_steps_and_rules_exist(page: Path) -> None:
    for heading, text in sections(page).items():
        if heading == PLANNED:
            continue
        kinds = {name for found in STEP.findall(text) for name in found if name}
        assert kinds <= set(CATALOGUE), f"{page.name} names {kinds - set(CATALOGUE)}"
        assert set(RULE.findall(text)) <= pair_rules()


def test_the_page_of_the_pair_rules_has_all_of_them() -> None:
    text = sections(METHODS / "pair_rules.md")["Formulas"]
    assert pair_rules()
    assert {rule for rule in pair_rules() if f"| `{rule}` |" not in text} == set()


def test_the_losses_of_the_page_are_those_of_the_step() -> None:
    text = sections(METHODS / "preference_losses.md")["Formulas"]
    rows = re.findall(r"^\| (`[a-z_]+`(?:, `[a-z_]+`)*) \|", text, flags=re.MULTILINE)
    losses = [loss for row in rows for loss in re.findall(r"[a-z_]+", row)]
    assert len(losses) == 15
    step = {"model": "m", "pairs": "$pairs", "learning_rate": 1e-6, "label_smoothing": 1e-3}
    for loss in losses:
        CATALOGUE["dpo"].model_validate(step | {"loss": loss})
    with pytest.raises(ValueError, match="not_a_loss"):
        CATALOGUE["dpo"].model_validate(step | {"loss": "not_a_loss"})


@method_page
def test_every_example_of_steps_is_a_valid_recipe_part(page: Path) -> None:
    for block in fences(page, "yaml"):
        steps = yaml.safe_load(block)
        assert isinstance(steps, dict) and steps
        for step in steps.values():
            CATALOGUE[step["kind"]].model_validate(step).check()


@every_page
def test_every_command_parses_and_its_recipe_exists(page: Path) -> None:
    command = the_command()
    for block in fences(page, "bash"):
        for line in block.strip().splitlines():
            program, *words = shlex.split(line, comments=True)
            if program == "python":
                assert (ROOT / words[0]).is_file(), line
                continue
            assert program == "w2s", line
            name, sub, rest = command.resolve_command(command.context_class(command), words)
            assert sub is not None
            sub.make_context(name, list(rest))  # parsing empties its list
            if name in WITH_RECIPE:
                assert rest[0] in recipes, line
            if name == "steps" and rest:
                assert rest[0] in CATALOGUE, line
