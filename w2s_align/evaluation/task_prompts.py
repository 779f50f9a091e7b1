"""From the rows of a benchmark to prompts: templates filled in, options lettered, examples put before each problem.

Reads a Task and its rows, returns a table of ``Prompt.SCHEMA``. A row that makes no problem is counted with its
reason.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError
from w2s_align.evaluation.published import published_examples
from w2s_align.evaluation.task import GENERATORS, Task
from w2s_align.evaluation.task_rows import task_rows
from w2s_align.evaluation.templates import Templates
from w2s_align.records import Message, Prompt, to_table

if TYPE_CHECKING:
    import pyarrow as pa

LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
"""What names the options of multiple choice."""


@dataclass(frozen=True)
class Problems:
    """The problems of a task.

    Attributes:
        table: Rows of ``Prompt.SCHEMA``; ``meta`` has ``subject`` and ``difficulty`` where the task says them.
        counts: ``rows_in``, ``kept`` and ``dropped`` by reason; ``with fewer examples`` than asked for, if any.
    """

    table: pa.Table
    counts: dict[str, Any]


def task_problems(task: Task, *, seed: int = 0, data_dir: str | None = None) -> Problems:
    """Load the problems of a task.

    Args:
        task: The task; see :func:`w2s_align.evaluation.task.load_task`.
        seed: Seed of the draw when there is a limit, of shuffled options and of generated problems.
        data_dir: Mirror folder; by default the one of the environment, else the hub.

    Raises:
        UserError: The data are not there, or the task's templates do not fit them.
    """
    source = task.data.source or ""
    if source.startswith(GENERATORS):
        from w2s_align.interchange.prompt_sources import load_prompts

        loaded = load_prompts(source, split="test", limit=task.limit or 200, seed=seed, options=task.data.options)
        return Problems(loaded.table, loaded.counts)
    return _Builder(task, seed).problems(data_dir)


class _Builder:
    """Fills in the templates of one task."""

    def __init__(self, task: Task, seed: int) -> None:
        self.task, self.seed = task, seed
        self.fewer = 0
        """Problems with fewer examples before them than asked for."""
        templates = Templates(f"The task {task.name}", drop_references=drop_references)
        self._text, self._value = templates.text, templates.value

    def problems(self, data_dir: str | None) -> Problems:
        task = self.task
        rows = list(task_rows(task, task.data.split, data_dir))
        dropped: Counter[str] = Counter()
        rows_in, examples = len(rows), [self._fields(row, i) for i, row in enumerate(task.examples)]
        if task.shots and not examples and task.published is None:
            if task.shots_other:
                examples = self._first_of_each([self._fields(row, i) for i, row in enumerate(rows)])
            elif task.data.shots and task.data.shots != task.data.split:
                given = task_rows(task, task.data.shots, data_dir)
                examples = [self._fields(row, i) for i, row in enumerate(given)]
            else:
                examples, rows = self._taken_out([self._fields(row, i) for i, row in enumerate(rows)], rows)
                dropped["used as an example"] = rows_in - len(rows)
        numbered = list(enumerate(rows))
        if task.limit is not None and task.limit < len(numbered):
            dropped["beyond the limit"] = len(numbered) - task.limit
            numbered = sorted(random.Random(self.seed).sample(numbered, task.limit), key=lambda entry: entry[0])
        kept: dict[str, Prompt] = {}
        for index, row in numbered:
            prompt = self._prompt(self._fields(row, index), examples)
            if prompt.id in kept:
                dropped["duplicate"] += 1
            else:
                kept[prompt.id] = prompt
        if not kept:
            raise UserError(f"The task {task.name} has no problems: its split {task.data.split} is empty.")
        counts: dict[str, Any] = {
            "rows_in": rows_in,
            "kept": len(kept),
            "dropped": {k: n for k, n in dropped.items() if n},
        }
        if self.fewer:
            counts["with fewer examples"] = self.fewer
        return Problems(to_table(list(kept.values()), Prompt), counts)

    def _first_of_each(self, fields: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Return the first row of each value of ``shots_other``, in the order of the rows."""
        first: dict[Any, dict[str, Any]] = {}
        for one in fields:
            first.setdefault(self._value(self.task.shots_other or "", one), one)
        return list(first.values())

    def _taken_out(
        self, fields: list[dict[str, Any]], rows: list[dict[str, Any]]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Split off the first rows (of each kind, where examples must be of the problem's kind) as examples."""
        used: Counter[Any] = Counter()
        examples, rest = [], []
        for one, row in zip(fields, rows, strict=True):
            kind = self._value(self.task.shots_same, one) if self.task.shots_same else None
            if used[kind] < self.task.shots:
                used[kind] += 1
                examples.append(one)
            else:
                rest.append(row)
        if not rest:
            raise UserError(
                f"The task {self.task.name} has {len(rows)} rows, and {self.task.shots} examples leave no problem."
            )
        return examples, rest

    def _fields(self, row: dict[str, Any], index: int) -> dict[str, Any]:
        """Return what templates can use: the columns, ``row``, its ``number`` from 0, for multiple choice ``options``
        and ``letter``, and ``shots``, how many examples there are."""
        fields: dict[str, Any] = {**row, "row": row, "number": index, "letters": LETTERS, "shots": self.task.shots}
        if self.task.choices is not None:
            choices = [str(choice).strip() for choice in self._value(self.task.choices, fields)]
            gold = int(self._value(self.task.gold or "0", fields))
            if not 0 <= gold < len(choices) <= len(LETTERS):
                raise UserError(f"The task {self.task.name}, row {index}: {gold} is not a position in {choices}.")
            order = list(range(len(choices)))
            if self.task.shuffle:
                digest = hashlib.sha256(json.dumps([self.seed, *choices]).encode()).digest()
                random.Random(digest).shuffle(order)
            label = self.task.option_label
            lines = [f"{label.format(LETTERS[place])} {choices[choice]}" for place, choice in enumerate(order)]
            fields |= {"options": "\n".join(lines), "letter": LETTERS[order.index(gold)]}
        return fields

    def _prompt(self, fields: dict[str, Any], examples: Sequence[dict[str, Any]]) -> Prompt:
        task = self.task
        asked = self._text(task.prompt, fields)
        turns, before = self._examples(fields, examples)
        self.fewer += len(turns) < task.shots
        messages: list[Message] = [{"role": "system", "content": task.system}] if task.system else []
        if task.shots_style == "turns":
            for question, answer in turns:
                messages += [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        else:
            asked = "\n\n".join([*before, *(f"{question}\n{answer}" for question, answer in turns), asked])
        messages.append({"role": "user", "content": asked})
        meta = {name: self._value(expression, fields) for name, expression in task.meta.items()}
        for name in ("subject", "difficulty"):
            template = getattr(task, name)
            if template is not None:
                meta[name] = self._text(template, fields)
        return Prompt.of(
            messages, answer=self._gold(fields), task=task.name, meta=json.loads(json.dumps(meta, default=str))
        )

    def _examples(
        self, fields: dict[str, Any], examples: Sequence[dict[str, Any]]
    ) -> tuple[list[tuple[str, str]], list[str]]:
        """Return the examples of a problem as questions and answers, and what stands before them."""
        task = self.task
        if task.published is not None and task.shots and not task.examples:
            found = published_examples(task.published.file.replace("{config}", str(fields.get("config", ""))))
            rows = [{**row, "row": row, "shots": task.shots} for row in found.rows[: task.shots]]
            turns = [(self._text(task.prompt, row), self._text(task.published.shot, row)) for row in rows]
            return turns, [found.description] if found.description else []
        shown = list(examples)
        for expression, same in ((task.shots_same, True), (task.shots_other, False)):
            if expression and not (task.examples and not same):
                kind = self._value(expression, fields)
                shown = [example for example in shown if (self._value(expression, example) == kind) is same]
        return [(self._text(task.prompt, one), self._shot(one)) for one in shown[: task.shots]], []

    def _gold(self, fields: dict[str, Any]) -> str | None:
        if self.task.choices is not None:
            return str(fields["letter"])
        return self._text(self.task.answer, fields) if self.task.answer is not None else None

    def _shot(self, fields: dict[str, Any]) -> str:
        if self.task.shot is not None:
            return self._text(self.task.shot, fields)
        gold = self._gold(fields)
        if gold is None:
            raise UserError(
                f"The task {self.task.name} has no answers to show, so it cannot be asked with examples.",
                fix="shots: 0",
            )
        return gold


def drop_references(answer: dict[str, Any], validated: dict[str, Any] | None = None) -> list[list[str]]:
    """Return DROP's accepted answers, each a list of spans: the annotator's and those of its validators.

    An answer is a number, some spans, or a date (Dua et al. 2019, arXiv 1903.00161).
    """
    found = [_drop_spans(answer)]
    if validated:
        parts = [validated.get(name) or [] for name in ("number", "date", "spans")]
        for place in range(max(map(len, parts))):
            number, date, spans = (part[place] if place < len(part) else None for part in parts)
            found.append(_drop_spans({"number": number, "date": date, "spans": spans}))
    return [spans for i, spans in enumerate(found) if spans and spans not in found[:i]]


def _drop_spans(answer: dict[str, Any]) -> list[str]:
    if answer.get("number"):
        return [str(answer["number"])]
    if answer.get("spans"):
        return [str(span) for span in answer["spans"]]
    date = answer.get("date") or {}
    text = " ".join(str(date[part]) for part in ("day", "month", "year") if date.get(part))
    return [text] if text else []
