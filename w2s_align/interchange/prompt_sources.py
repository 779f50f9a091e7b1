"""Where prompts come from: a hub dataset, a local file, reasoning-gym, the lab. All become one Arrow table of prompts.

Reads JSONL, JSON, CSV, Parquet or a dataset of the hub; writes nothing. Every row that is left out is counted.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from w2s_align.errors import UserError, did_you_mean, missing_package
from w2s_align.interchange.readers import ROW_FILES, Broken, file_rows, hub_dataset
from w2s_align.records import Message, Prompt, to_table, valid_unicode

if TYPE_CHECKING:
    import pyarrow as pa

PROMPT_COLUMNS = ("messages", "prompt", "question", "problem", "instruction")
"""Columns that hold the prompt when nothing else is said, the first that is there."""
MAX_ATTEMPTS = 20
"""Generated tasks repeat themselves; stop looking for new ones after this many tries for each prompt wanted."""

Part = Literal["all", "train", "test"]


@dataclass(frozen=True)
class LoadedPrompts:
    """Prompts and what happened to the rows they came from.

    Attributes:
        table: Rows of ``Prompt.SCHEMA``; no id stands twice.
        counts: ``rows_in``, ``kept``, and ``dropped`` by reason.
    """

    table: pa.Table
    counts: dict[str, Any] = field(default_factory=dict)


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
        columns: Which column holds what: keys ``prompt`` (a text or messages), ``answer``, ``group``.
        template: Text around each prompt, with ``{prompt}`` in it; only for prompts of one turn.
        limit: Keep this many prompts.
        shuffle: Draw them at random with the seed instead of taking the first.
        seed: Seed of the shuffle and of generated tasks.
        hold_out: Share of the groups that belong to the part ``test``; which ones depends on their text alone.
        part: ``train`` leaves out the held-out share, ``test`` takes only it.
        task: Name of the task, which also names the default answer check. Default: from the source.
        options: Options of a reasoning-gym dataset.

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
    rows: Iterable[Prompt | str]
    if kind == "lab" and name:
        from w2s_align import lab

        rows = lab.problems(source, limit or 0, seed=seed, split="test" if split == "test" else "train")
    elif kind == "reasoning_gym" and name:
        rows = _reasoning_gym_rows(name, limit or 0, hold_out if part == "test" else 1 - hold_out, seed, options or {})
    else:
        raw: Iterable[dict[str, Any] | Broken]
        if Path(source).suffix in ROW_FILES or Path(source).exists():
            raw, default_task = file_rows(Path(source).expanduser()), Path(source).stem
        else:
            raw = hub_dataset(source, config_name, split, revision=revision)
        rows = _mapped(raw, source, columns or {}, task or default_task)
    return _collect(rows, source, template, limit, shuffle, seed, hold_out, part)


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
    from w2s_align.lab.tasks import find_task

    find_task(source)
    if split not in ("train", "test"):
        raise UserError(f"{source} has no split {split}.", fix="Use train or test.")
    if options:
        raise UserError(f"{source} takes no options.", fix=f"Leave them out: {', '.join(options)}")


def _collect(
    rows: Iterable[Prompt | str],
    source: str,
    template: str | None,
    limit: int | None,
    shuffle: bool,
    seed: int,
    hold_out: float,
    part: Part,
) -> LoadedPrompts:
    """Keep what belongs to the part, once each, up to the limit. A text instead of a prompt is a reason to drop."""
    kept: dict[str, Prompt] = {}
    dropped: Counter[str] = Counter()
    rows_in = 0
    for row in rows:
        rows_in += 1
        if isinstance(row, str):
            dropped[row] += 1
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
        raise UserError(f"{source} gives no prompt: {reasons}.", fix="Check the file, its columns, and the part.")
    prompts = list(kept.values())
    if shuffle:
        random.Random(seed).shuffle(prompts)
        if limit is not None and limit < len(prompts):
            dropped["beyond the limit"] += len(prompts) - limit
            prompts = prompts[:limit]
    counts = {"rows_in": rows_in, "kept": len(prompts), "dropped": dict(dropped)}
    return LoadedPrompts(to_table(prompts, Prompt), counts)


def _wrapped(prompt: Prompt, template: str) -> Prompt:
    *before, last = prompt.messages
    messages = [*before, {"role": last["role"], "content": template.replace("{prompt}", last["content"])}]
    return Prompt.of(messages, answer=prompt.answer, task=prompt.task, group=prompt.group, meta=prompt.meta)


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


def _mapped(
    rows: Iterable[dict[str, Any] | Broken], source: str, columns: dict[str, str], task: str
) -> Iterator[Prompt | str]:
    """Turn rows into prompts by the column mapping; the columns are checked on the first row that there is."""
    checked = False
    for row in rows:
        if isinstance(row, Broken):
            yield row.reason
            continue
        if not checked:
            columns, checked = _check_columns(row, source, columns), True
        yield _prompt(row, columns, task)


def _check_columns(row: dict[str, Any], source: str, columns: dict[str, str]) -> dict[str, str]:
    there = ", ".join(row)
    unknown = set(columns) - {"prompt", "answer", "group"}
    if unknown:
        raise UserError(
            f"columns has no {', '.join(sorted(unknown))}.", fix="It maps prompt, answer and group to columns."
        )
    for role, column in columns.items():
        if column not in row:
            raise UserError(f"{source} has no column {column} for the {role}.", fix=f"It has: {there}.")
    if "prompt" not in columns:
        found = next((name for name in PROMPT_COLUMNS if name in row), None)
        if found is None:
            raise UserError(
                f"No column of {source} looks like a prompt.",
                why=f"It has: {there}.",
                fix="Say which one it is: columns: {prompt: <column>, answer: <column>}",
            )
        columns = {**columns, "prompt": found}
    if "answer" not in columns and "answer" in row:
        columns = {**columns, "answer": "answer"}
    return columns


def _prompt(row: dict[str, Any], columns: dict[str, str], task: str) -> Prompt | str:
    """Make a prompt of a row, or say why not."""
    value = row.get(columns["prompt"])
    fields = {
        "answer": _text(row.get(columns.get("answer", ""))),
        "group": _text(row.get(columns.get("group", ""))),
        "task": task,
    }
    if isinstance(value, str):
        value = valid_unicode(value)
        return Prompt.of(value, **fields) if value.strip() else "empty prompt"
    if not isinstance(value, list):
        return "no prompt"
    messages: list[Message] = []
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("content"), str) or "role" not in message:
            return "broken messages"
        messages.append({"role": str(message["role"]), "content": valid_unicode(message["content"])})
    while messages and messages[-1]["role"] == "assistant":
        messages.pop()  # data for fine-tuning ends with the answer; here it is the model's turn to write one
    if not messages or messages[-1]["role"] != "user":
        return "no user turn at the end"
    return Prompt.of(messages, **fields)


def _text(value: Any) -> str | None:
    return None if value is None else valid_unicode(str(value))
