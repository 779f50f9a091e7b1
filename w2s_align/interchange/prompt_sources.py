"""Where prompts come from: a hub dataset, a local file, reasoning-gym, the lab. All become one Arrow table of prompts.

Reads JSONL, JSON, CSV, Parquet or a dataset of the hub; writes nothing. Every row that is left out is counted.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from w2s_align.errors import UserError, did_you_mean, missing_package
from w2s_align.interchange.columns import INPUT, INSTRUCTIONS, PROMPTS, base, cell, find_columns, normal, proposed
from w2s_align.interchange.pair_layouts import history_turns, turns
from w2s_align.interchange.pair_responses import INPUT_SEPARATOR
from w2s_align.interchange.readers import ROW_FILES, Broken, broken_in_words, hub_dataset, numbered_rows
from w2s_align.records import Message, Prompt, to_table, valid_unicode

if TYPE_CHECKING:
    import pyarrow as pa

OWN_ID = "id"
"""Where ``Prompt.meta`` holds the id that a row has of its own."""
_OPTIONAL = ("answer", "system", "history")
"""Columns that are looked for in every row: one that not all rows have is not in the first."""
GLANCE_ROWS = 1000
"""Rows that :func:`glance` reads: columns that only some rows have show up, and a plan stays quick."""
MAX_ATTEMPTS = 20
"""Generated tasks repeat themselves; stop looking for new ones after this many tries for each prompt wanted."""

Part = Literal["all", "train", "test"]


@dataclass(frozen=True)
class LoadedPrompts:
    """Prompts and what happened to the rows they came from.

    Attributes:
        table: Rows of ``Prompt.SCHEMA``; no id stands twice.
        counts: ``rows_in``, ``kept``, ``dropped`` by reason, and ``not_read``: the columns that were not read, with
            the number of rows that have something in them.
        warnings: What a user should know of the rows and columns, as sentences.
    """

    table: pa.Table
    counts: dict[str, Any] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)


def load_prompts(
    source: str,
    *,
    split: str = "train",
    config_name: str | None = None,
    revision: str | None = None,
    columns: dict[str, str] | None = None,
    template: str | None = None,
    limit: int | None = None,
    shuffle: bool = False,
    seed: int = 0,
    hold_out: float = 0.0,
    part: Part = "all",
    task: str | None = None,
    options: dict[str, Any] | None = None,
) -> LoadedPrompts:
    """Load prompts from any source.

    Args:
        source: A file (``data.jsonl``, ``.json``, ``.csv``, ``.parquet``), ``lab/<task>``,
            ``reasoning_gym/<dataset>``, or the id of a dataset on the hub.
        split: Split of a hub dataset or of a lab task.
        config_name: Configuration of a hub dataset.
        revision: Commit, tag or branch of a hub dataset.
        columns: Which column holds what: keys ``prompt`` (a text or messages), ``answer``, ``group``, ``system``,
            ``input`` (what completes an instruction), ``history``, ``id`` (rows that differ in it stay apart, also
            where they ask the same). ``meta.gold`` and ``output.0`` look into a column.
        template: Text around each prompt, with ``{prompt}`` in it; only for prompts of one turn.
        limit: Keep this many prompts.
        shuffle: Draw them at random with the seed instead of taking the first.
        seed: Seed of the shuffle and of generated tasks.
        hold_out: Share of the groups that belong to the part ``test``; which ones depends on their text alone.
        part: ``train`` leaves out the held-out share, ``test`` takes only it.
        task: Name of the task, which also names the default answer check. Default: from the source.
        options: Options of a reasoning-gym dataset, or of ``lab/carry``.

    Returns:
        The prompts and the counts.

    Raises:
        UserError: The source is missing, empty, or has no such column.
    """
    if template is not None and "{prompt}" not in template:
        raise UserError("template does not contain {prompt}.", fix="Put {prompt} where the prompt goes.")
    check_generated(source, split, limit, options or {})
    kind, _, name = source.partition("/")
    default_task = source
    rows: Iterable[Prompt | Unread]
    reading = _Reading(source, columns or {})
    if kind == "lab" and name:
        from w2s_align import lab

        where: lab.Split = "test" if split == "test" else "train"
        rows = (
            lab.carry_items(limit or 0, seed, where, **options or {})
            if source == lab.CARRY
            else lab.problems(source, limit or 0, seed=seed, split=where)
        )
    elif kind == "reasoning_gym" and name:
        rows = _reasoning_gym_rows(name, limit or 0, hold_out if part == "test" else 1 - hold_out, seed, options or {})
    else:
        raw: Iterable[tuple[str, dict[str, Any] | Broken]]
        if Path(source).suffix in ROW_FILES or Path(source).exists():
            raw, default_task = numbered_rows(Path(source).expanduser()), Path(source).stem
        else:
            hub = hub_dataset(source, config_name, split, revision=revision)
            raw = ((f"row {number}", row) for number, row in enumerate(hub, start=1))
        rows = reading.prompts(raw, task or default_task)
    return _collect(rows, reading, template, limit, shuffle, seed, hold_out, part)


@dataclass(frozen=True)
class Glance:
    """What the first rows of a file tell before anything runs.

    Attributes:
        prompts: Prompts among them.
        answers: How many of these have a gold answer.
        columns: The columns of the first row.
        warnings: As in :class:`LoadedPrompts`, of these rows alone.
    """

    prompts: int
    answers: int
    columns: tuple[str, ...]
    warnings: list[str]


def glance(path: Path, columns: Mapping[str, str]) -> Glance:
    """Read the first rows of a file, as :func:`load_prompts` would.

    Args:
        path: A file of rows.
        columns: Which column holds what.

    Raises:
        UserError: The file cannot be read, or it has no such column.
    """
    reading = _Reading(path.name, columns)
    prompts = [row for row in reading.prompts(islice(numbered_rows(path), GLANCE_ROWS), "") if isinstance(row, Prompt)]
    answers = sum(bool(prompt.answer and prompt.answer.strip()) for prompt in prompts)
    return Glance(len(prompts), answers, tuple(reading.example), reading.warnings())


@dataclass(frozen=True)
class Unread:
    """A row that is no prompt: where it is, and why."""

    place: str
    reason: str


def check_generated(source: str, split: str, limit: int | None, options: dict[str, Any]) -> None:
    """Refuse a source of generated tasks that cannot give prompts; any other source passes.

    Args:
        source: See :func:`load_prompts`, as the others.
        split: Split of a lab task.
        limit: How many prompts are wanted.
        options: Options of a reasoning-gym dataset.

    Raises:
        UserError: There is no such lab task, split or option, or no limit.
    """
    kind, _, name = source.partition("/")
    if kind not in ("lab", "reasoning_gym") or not name:
        return
    if limit is None:
        raise UserError(f"{source} makes as many prompts as you want.", fix="Add limit: 1000, for example.")
    if kind == "reasoning_gym":
        return
    from w2s_align import lab

    if source == lab.CARRY:
        lab.check_options(options)
    else:
        lab.find_task(source)
    if split not in ("train", "test"):
        raise UserError(f"{source} has no split {split}.", fix="Use train or test.")
    if options and source != lab.CARRY:
        raise UserError(f"{source} takes no options.", fix=f"Leave them out: {', '.join(options)}")


def _collect(
    rows: Iterable[Prompt | Unread],
    reading: _Reading,
    template: str | None,
    limit: int | None,
    shuffle: bool,
    seed: int,
    hold_out: float,
    part: Part,
) -> LoadedPrompts:
    """Keep what belongs to the part, once each, up to the limit. What cannot be read is counted."""
    kept: dict[str, Prompt] = {}
    dropped: Counter[str] = Counter()
    broken: list[tuple[str, str]] = []
    rows_in = 0
    for row in rows:
        rows_in += 1
        if isinstance(row, Unread):
            dropped[row.reason] += 1
            broken.append((row.place, row.reason))
            continue
        if template is not None:
            row = _wrapped(row, template)
        if part != "all" and _is_held_out(row, hold_out) != (part == "test"):
            dropped[f"not in part {part}"] += 1
        elif row.id in kept:
            dropped["duplicate"] += 1
        else:
            kept[row.id] = row
            if limit is not None and len(kept) == limit and not shuffle:
                break
    if not kept:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dropped.items()) or "it is empty"
        tried = {f"not the {role}": column for role, column in reading.mapping.items() if role != "input"}
        fitting = proposed(("prompt",), tried, reading.example) if tried and len(broken) == rows_in else None
        raise UserError(
            f"{reading.source} gives no prompt: {reasons}.",
            why=f"The prompt was looked for in the column {reading.mapping['prompt']}." if fitting else "",
            fix=f"Say which column holds the prompt; this could fit: {fitting}"
            if fitting
            else "Check the file, its columns, and the part.",
        )
    prompts = list(kept.values())
    if shuffle:
        random.Random(seed).shuffle(prompts)
        if limit is not None and limit < len(prompts):
            dropped["beyond the limit"] += len(prompts) - limit
            prompts = prompts[:limit]
    counts: dict[str, Any] = {"rows_in": rows_in, "kept": len(prompts), "dropped": dict(dropped)}
    if reading.not_read:
        counts["not_read"] = dict(reading.not_read)
    warnings = [broken_in_words(rows_in, broken)] if broken else []
    return LoadedPrompts(to_table(prompts, Prompt), counts, warnings + reading.warnings())


def _wrapped(prompt: Prompt, template: str) -> Prompt:
    *before, last = prompt.messages
    messages = [*before, {"role": last["role"], "content": template.replace("{prompt}", last["content"])}]
    fields = {"answer": prompt.answer, "task": prompt.task, "group": prompt.group, "meta": prompt.meta}
    return _with_own_id(Prompt.of(messages, **fields), prompt.meta.get(OWN_ID))


def _is_held_out(prompt: Prompt, share: float) -> bool:
    """Decide by a digest of the group, so that groups stay together and new rows never move old ones."""
    digest = hashlib.sha256((prompt.group or prompt.id).encode()).digest()
    return int.from_bytes(digest[:8], "big") < share * 2**64


def _reasoning_gym_rows(name: str, limit: int, share: float, seed: int, options: dict[str, Any]) -> Iterator[Prompt]:
    try:
        import reasoning_gym
    except ImportError:
        raise missing_package("reasoning-gym", "reasoning_gym", f"the source reasoning_gym/{name}") from None

    known = reasoning_gym.factory.DATASETS
    if name not in known:
        raise UserError(f"reasoning-gym has no dataset {name}.", fix=did_you_mean(name, known))
    attempts = int(limit * MAX_ATTEMPTS / max(share, 0.01))
    try:
        dataset = reasoning_gym.create_dataset(name, size=attempts, seed=seed, **options)
    except (TypeError, AssertionError) as error:
        raise UserError(f"reasoning-gym's {name} refuses the options {options}: {error}.") from None
    for index in range(attempts):
        entry = dataset[index]
        meta = {"reasoning_gym": name, "entry": json.loads(json.dumps(entry, default=str))}
        yield Prompt.of(entry["question"], answer=_text(entry["answer"]), task=f"reasoning_gym/{name}", meta=meta)


@dataclass
class _Reading:
    """Rows as prompts, and what reading them met.

    Attributes:
        source: What is read.
        named: Which column holds what, as the user says.
        mapping: The column of each entry of ``columns.PROMPTS``, told from the first row.
        example: The first row.
        not_read: Columns that were not read, with the number of rows that have something in them.
    """

    source: str
    named: Mapping[str, str]
    mapping: dict[str, str] = field(default_factory=dict)
    example: dict[str, Any] = field(default_factory=dict)
    not_read: Counter[str] = field(default_factory=Counter)

    def prompts(self, rows: Iterable[tuple[str, dict[str, Any] | Broken]], task: str) -> Iterator[Prompt | Unread]:
        """Turn rows into prompts.

        Raises:
            UserError: The first row has no column for the prompt, or none that was named.
        """
        for place, row in rows:
            if isinstance(row, Broken):
                yield Unread(place, row.reason)
                continue
            if not self.mapping:
                self.mapping, self.example = self._columns(row), row
            mapping = self.mapping
            if len(mapping) < len(PROMPTS):  # a column that only some rows have, such as Alpaca's input
                mapping = find_columns({name: PROMPTS[name] for name in _OPTIONAL}, row) | mapping
                if "input" not in mapping and normal(mapping["prompt"]) in INSTRUCTIONS:
                    mapping = find_columns({"prompt": INSTRUCTIONS, "input": INPUT}, row) | mapping
            read = {base(column, row) for column in mapping.values()}
            self.not_read.update(name for name, value in row.items() if name not in read and value not in (None, ""))
            prompt = _prompt(row, mapping, task)
            yield Unread(place, prompt) if isinstance(prompt, str) else prompt

    def warnings(self) -> list[str]:
        """Return sentences on the columns that were not read, and on one that was taken for the answer."""
        said = []
        if self.not_read:
            names = ", ".join(sorted(self.not_read))
            said.append(f"Columns of {self.source} that were not read: {names}. The option columns maps them.")
        answer = self.mapping.get("answer")
        if answer is not None and "answer" not in self.named and normal(answer) != "answer":
            said.append(f"The column {answer} is read as the answer; columns: {{answer: <column>}} names another.")
        return said

    def _columns(self, row: dict[str, Any]) -> dict[str, str]:
        there = ", ".join(row)
        unknown = set(self.named) - set(PROMPTS)
        if unknown:
            raise UserError(
                f"columns has no {', '.join(sorted(unknown))}.", fix=f"It maps {', '.join(PROMPTS)} to columns."
            )
        for role, column in self.named.items():
            if base(column, row) not in row:
                raise UserError(f"{self.source} has no column {column} for the {role}.", fix=f"It has: {there}.")
        mapping = find_columns(PROMPTS, row) | dict(self.named)
        if "prompt" not in mapping:
            fitting = proposed(("prompt",), mapping, row) or "columns: {prompt: <column>, answer: <column>}"
            raise UserError(
                f"No column of {self.source} looks like a prompt.",
                why=f"It has: {there}.",
                fix=f"Say which one it is: {fitting}",
            )
        return mapping


def _prompt(row: dict[str, Any], mapping: Mapping[str, str], task: str) -> Prompt | str:
    """Make a prompt of a row, or say why not."""
    held = {role: cell(row, column) for role, column in mapping.items()}
    fields = {"answer": _text(held.get("answer")) or None, "group": _text(held.get("group")), "task": task}
    value, system, more = held["prompt"], held.get("system"), held.get("input")
    if isinstance(value, str):
        if not value.strip():
            return "empty prompt"
        if isinstance(more, str) and more.strip():
            value = f"{value}{INPUT_SEPARATOR}{more}"
        earlier = history_turns(held.get("history")) or []
        value = [*earlier, {"role": "user", "content": value}]
    chat = turns(value, "user")
    if not isinstance(value, list) or chat is None:
        return "no prompt"
    if any(turn["role"] is None or turn["content"] is None for turn in chat):
        return "broken messages"
    messages: list[Message] = [{"role": t["role"], "content": valid_unicode(t["content"])} for t in chat]
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()  # data for fine-tuning ends with the answer; here it is the model's turn to write one
    if not messages or messages[-1]["role"] != "user":
        return "no user turn at the end"
    if isinstance(system, str) and system.strip() and messages[0]["role"] != "system":
        messages.insert(0, {"role": "system", "content": valid_unicode(system)})
    return _with_own_id(Prompt.of(messages, **fields), _text(held.get("id")))


def _with_own_id(prompt: Prompt, own: str | None) -> Prompt:
    """Return a prompt whose id also depends on that of its row: the same question of two rows is two prompts."""
    if own is None:
        return prompt
    digest = hashlib.sha256(f"{prompt.id}/{own}".encode()).hexdigest()
    meta = {**prompt.meta, OWN_ID: own}  # the group keeps the same question on one side of a split
    return replace(prompt, id=digest[: len(prompt.id)], group=prompt.group or prompt.id, meta=meta)


def _text(value: Any) -> str | None:
    return None if value is None else valid_unicode(str(value))
