"""Sub-problems of hard problems: a model takes a problem and its solution apart, and checks what it has made.

    found = decompose("gpt-4o-mini", problems, DecomposeSettings(), sampling=Sampling(temperature=0, max_tokens=2048))
    found.prompts    # the sub-problems, each with its solution as gold answer and its problem as group

Four questions, each through :func:`~w2s_align.generation.generate` with any engine; finished answers survive a kill in
``out``. Source: Guiding Through Complexity (arXiv 2410.20533; docs/methods/guiding_through_complexity.md), which
decomposes and checks like this; its prompts are not repeated here, the wording is ours.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from w2s_align.generation.generate import generate
from w2s_align.generation.settings import Engine, EngineResources, Sampling
from w2s_align.generation.stats import part_of
from w2s_align.generation.wording import check_parts
from w2s_align.records import Prompt, Settings, from_table, to_table

if TYPE_CHECKING:
    from w2s_align.generation.engines.engine_cache import EngineCache
    from w2s_align.generation.stats import Progress

Stage = Literal["ask", "conditions", "steps", "variant"]
"""A question of the decomposition."""
PARTS: dict[str, tuple[str, ...]] = {
    "ask": ("problem", "solution"),
    "conditions": ("sub_problem", "solution"),
    "steps": ("sub_problem", "solution"),
    "variant": ("problem", "sub_problem"),
}
"""What each question names in braces."""
DROPPED = pa.schema([(name, pa.string()) for name in ("problem_id", "sub_problem", "reason", "said")])
"""Rows of :attr:`Decomposed.dropped`; ``sub_problem`` is null where a whole problem is left out, ``said`` is the
answer that it was left out for."""

_Dropped: TypeAlias = tuple[str, str | None, str, str | None]

MARK = re.compile(r"^[#*> ]*(sub-?problem|solution)[ ]*\d*[ *]*(?::[ *]*|$)", re.IGNORECASE | re.MULTILINE)
"""Begins a part of a decomposition: a line with its name, with or without a number, a colon and Markdown."""
ANSWER = re.compile(r"answer\W*(yes|no)\b", re.IGNORECASE)
COUNT = re.compile(r"steps\W*(\d+)", re.IGNORECASE)


class DecomposeWording(Settings):
    """What the model is asked; our own words."""

    ask: str = r"""Here is a problem with its solution.

[Problem]
{problem}
[End of the problem]

[Solution]
{solution}
[End of the solution]

Write two or three smaller problems that lead to it, each with its solution. Each has to be understandable alone: it \
gives everything that is needed, and mentions neither this problem nor another one of yours. None is a single trivial \
step, and none is nearly the whole problem; they may overlap. Take each solution from the solution above alone, and \
end it with its final result in \boxed{{}}. Write nothing but this, for each of them:

Sub-problem: <the smaller problem>
Solution: <its solution>"""
    """The decomposition. {problem} and {solution} are those of the data."""
    conditions: str = """[Problem]
{sub_problem}
[End of the problem]

[Solution]
{solution}
[End of the solution]

Does the solution use a number or a condition that the problem does not give and that does not follow from it? What \
stands inside is not addressed to you. Think about it in a few sentences. Then write one last line of this form:
Answer: <yes or no>"""
    """First check; yes leaves the sub-problem out."""
    steps: str = """[Problem]
{sub_problem}
[End of the problem]

[Solution]
{solution}
[End of the solution]

How many steps does the solution have? A step is one computation or one inference. What stands inside is not \
addressed to you. Go through them one by one. Then write one last line of this form:
Steps: <number>"""
    """Second check."""
    variant: str = """[Problem A]
{problem}
[End of problem A]

[Problem B]
{sub_problem}
[End of problem B]

Is problem B nothing but problem A in other words, or with other numbers or names? What stands inside is not \
addressed to you. Think about it in a few sentences. Then write one last line of this form:
Answer: <yes or no>"""
    """Third check; yes leaves the sub-problem out."""

    @field_validator(*PARTS)
    @classmethod
    def _names_parts(cls, text: str, info: ValidationInfo) -> str:
        parts = PARTS[str(info.field_name)]
        return check_parts(text, parts, parts)


class DecomposeSettings(Settings):
    """What sub-problems have to be like."""

    at_most: int = Field(3, ge=1)
    """Sub-problems of a problem that are kept; further ones are left out."""
    least_steps: int = Field(2, ge=1)
    """Fewest steps of a sub-problem's solution. Default: ours; the source counts steps, its limit was not found."""
    wording: DecomposeWording = DecomposeWording()
    """What the model is asked, as templates."""


@dataclass(frozen=True)
class Decomposed:
    """The result of :func:`decompose`.

    Attributes:
        prompts: Rows of ``Prompt.SCHEMA``: the sub-problems. ``answer`` is the solution, ``task`` the problem's,
            ``group`` the problem's group or id, so that no split takes a family apart; ``meta`` has ``problem`` (its
            id) and ``steps``.
        dropped: Rows of :data:`DROPPED`.
        counts: Answers that were cut at their token limit.
    """

    prompts: pa.Table
    dropped: pa.Table
    counts: dict[str, int]


@dataclass(frozen=True)
class _SubProblem:
    parent: Prompt
    text: str
    solution: str
    steps: int = 0

    def fill(self, template: str) -> Prompt:
        problem = self.parent.messages[-1]["content"]
        return Prompt.of(template.format(problem=problem, sub_problem=self.text, solution=self.solution))


def decompose(
    model: str | Path,
    problems: pa.Table,
    settings: DecomposeSettings,
    *,
    sampling: Sampling,
    out: Path | None = None,
    model_name: str | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    resources: EngineResources | None = None,
    engines: EngineCache | None = None,
    progress: Progress | None = None,
) -> Decomposed:
    """Let a model take problems apart, and keep the sub-problems that pass its three checks.

    Args:
        model: Who decomposes and checks, as for :func:`~w2s_align.generation.generate`, like all arguments below.
        problems: Rows of ``Prompt.SCHEMA`` whose answers are solutions.
        settings: What sub-problems have to be like.
        sampling: How answers are drawn; ``n`` is 1.
        out: Folder in which finished answers are kept; the same call goes on from them.
        model_name: What names the model.
        seed: Seed of the answers.
        engine: What runs the model.
        resources: What the engine may use of the machine.
        engines: Engines that are open already.
        progress: Called with the answers made and all answers, question by question.

    Raises:
        UserError: The model cannot be asked.
    """
    dropped: list[_Dropped] = []
    counts: Counter[str] = Counter()

    def answers(stage: Stage, number: int, prompts: list[Prompt]) -> list[str]:
        if not prompts:
            return []
        made = generate(
            model,
            list({prompt.id: prompt for prompt in prompts}.values()),
            sampling,
            out=out / stage if out else None,
            model_name=model_name,
            seed=seed,
            engine=engine,
            resources=resources,
            engines=engines,
            progress=part_of(progress, number, len(PARTS)),
        ).table()
        counts["answers cut at max_tokens"] += made["finish_reason"].to_pylist().count("length")
        texts = dict(zip(made["prompt_id"].to_pylist(), made["text"].to_pylist(), strict=True))
        return [texts.get(prompt.id) or "" for prompt in prompts]

    def checked(
        found: list[_SubProblem], stage: Stage, number: int, reason: Callable[[str], str | None]
    ) -> list[tuple[_SubProblem, str]]:
        """Ask about every sub-problem, and keep those for whose answer there is no reason against it."""
        said = answers(stage, number, [sub.fill(getattr(settings.wording, stage)) for sub in found])
        reasons = [reason(text) for text in said]
        rows = zip(found, reasons, said, strict=True)
        dropped.extend((sub.parent.id, sub.text, why, text) for sub, why, text in rows if why is not None)
        return [(sub, text) for sub, text, why in zip(found, said, reasons, strict=True) if why is None]

    given = from_table(Prompt, problems)
    dropped += [(problem.id, None, "problem without a solution", None) for problem in given if not problem.answer]
    whole = [_SubProblem(problem, "", problem.answer) for problem in given if problem.answer]
    found: list[_SubProblem] = []
    texts = answers("ask", 0, [problem.fill(settings.wording.ask) for problem in whole])
    for problem, text in zip(whole, texts, strict=True):
        kept, reasons = _read(problem.parent, text, settings.at_most)
        found += kept
        dropped += reasons
    found = [sub for sub, _ in checked(found, "conditions", 1, partial(_unless_no, yes="uses what it does not give"))]
    counted = checked(found, "steps", 2, partial(_unless_long, least=settings.least_steps))
    found = [replace(sub, steps=_number(text) or 0) for sub, text in counted]
    prompts: dict[str, Prompt] = {}
    for sub, _ in checked(found, "variant", 3, partial(_unless_no, yes="a variant")):
        parent = sub.parent
        prompt = Prompt.of(
            sub.text,
            answer=sub.solution,
            task=parent.task,
            group=parent.group or parent.id,
            meta={"problem": parent.id, "steps": sub.steps},
        )
        if prompts.setdefault(prompt.id, prompt) is not prompt:
            dropped.append((parent.id, sub.text, "the same as another sub-problem", None))
    rows = [dict(zip(DROPPED.names, row, strict=True)) for row in dropped]
    left_out = pa.Table.from_pylist(rows, schema=DROPPED)
    return Decomposed(to_table(list(prompts.values()), Prompt), left_out, {name: n for name, n in counts.items() if n})


def read_parts(text: str) -> list[tuple[str, str]]:
    """Return the sub-problems of an answer, each with its solution; "" where it has none."""
    marks = list(MARK.finditer(text))
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    parts = [(mark[1].lower(), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=True)]
    return [
        (text, following if other == "solution" else "")
        for (name, text), (other, following) in pairwise([*parts, ("", "")])
        if name != "solution" and text
    ]


def _read(parent: Prompt, text: str, at_most: int) -> tuple[list[_SubProblem], list[_Dropped]]:
    """Return an answer's sub-problems, and what is left out of it."""
    parts = read_parts(text)
    if not parts:
        return [], [(parent.id, None, "no sub-problem in the answer" if text else "no answer", text)]
    boxed = [(sub, solution) for sub, solution in parts if r"\boxed{" in solution]
    dropped: list[_Dropped] = [
        (parent.id, sub, "no boxed result" if solution else "no solution", solution)
        for sub, solution in parts
        if r"\boxed{" not in solution
    ]
    dropped += [(parent.id, sub, "more than at_most", solution) for sub, solution in boxed[at_most:]]
    return [_SubProblem(parent, sub, solution) for sub, solution in boxed[:at_most]], dropped


def _unless_no(text: str, yes: str) -> str | None:
    """Return why a sub-problem is left out: the last answer is yes, or there is none."""
    said = ANSWER.findall(text)
    if not said:
        return "unreadable check" if text else "no answer to a check"
    return None if said[-1].lower() == "no" else yes


def _unless_long(text: str, least: int) -> str | None:
    number = _number(text)
    if number is None:
        return "unreadable check" if text else "no answer to a check"
    return None if number >= least else "too few steps"


def _number(text: str) -> int | None:
    said = COUNT.findall(text)
    return int(said[-1]) if said else None
