"""Pairs from other tools' preference data, through the same filters, controls and audit as pairs of our own.

Reads any of the layouts of ``pair_layouts.py`` from a file, a folder, the hub or Python, batch by batch: a million
rows are Arrow columns, never Python objects all at once. Every row that cannot be read is counted with its line and
its reason.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, Unpack

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.interchange.columns import Layout, base, proposed
from w2s_align.interchange.pair_layouts import (
    DOUBTED,
    NEEDED,
    ROLES,
    ROLES_WITH_TOOLS,
    find_layout,
    from_columns,
    from_rows,
)
from w2s_align.interchange.pair_responses import SEVERAL_TURNS, prompts_and_responses
from w2s_align.interchange.readers import EXCERPT_CHARS, Batch, Broken, read_batches
from w2s_align.pairing.assemble import Options, Pairs, make_pairs
from w2s_align.pairing.candidates import Candidates, make_candidates
from w2s_align.pairing.counts import count_dropped
from w2s_align.pairing.dropped import DROPPED, EXAMPLES
from w2s_align.pairing.rules import RULES
from w2s_align.pairing.selection import PAIR_COLUMNS, Selection, prompts_without
from w2s_align.pairing.settings import Filters
from w2s_align.records import MESSAGES, Response, prompt_id

if TYPE_CHECKING:
    import polars as pl

RatingRule: TypeAlias = Literal["best_worst", "best_random", "score_gap"]
"""Rules that make pairs of ratings."""
ALL_PAIRS = 2**31 - 1
"""Pairs per prompt when nothing is said: what another tool has paired stays."""
USE_ALL_TURNS = "Where responses hold several turns or tool messages, say turns: all."
"""What to do about rows that are left out for :data:`~w2s_align.interchange.pair_responses.SEVERAL_TURNS`."""
GLANCE_ROWS = 1000
"""Rows that :func:`glance_at_pairs` reads."""
MOST_EXCERPTS = 10_000
"""Broken rows whose beginnings are kept: a file of which every line is broken must not fill the memory."""


def import_pairs(
    source: str | Path | Iterable[Mapping[str, Any]],
    *,
    layout: Layout | None = None,
    columns: Mapping[str, str] | None = None,
    rule: RatingRule = "best_worst",
    margin: float = 0.0,
    turns: Literal["last", "all"] = "last",
    split: str = "train",
    config_name: str | None = None,
    revision: str | None = None,
    data_dir: str | None = None,
    limit: int | None = None,
    stop_on_broken: bool = False,
    task: str | None = None,
    progress: Callable[[int, str], None] | None = None,
    **options: Unpack[Options],
) -> Pairs:
    """Read preference data and make pairs of it.

    Args:
        source: A file (.jsonl, .json, .csv, .tsv, .parquet), a folder of such files, the id of a dataset on the hub,
            or rows.
        layout: ``pairs``, ``ratings``, ``labels`` or ``compared`` (see ``pair_layouts.py``); None to tell it from the
            columns.
        columns: Which column holds what, where its name is not one of those in ``columns.NAMES``; ``output.0``
            is the first entry of a list ``output``.
        rule: How ratings become pairs.
        margin: Least difference of two ratings.
        turns: What a response is: the last turn, or all turns after what both chats share, tools' among them.
        split: Split of a dataset on the hub.
        config_name: Configuration of a dataset on the hub.
        revision: Commit, tag or branch of a dataset on the hub.
        data_dir: Folder of a dataset on the hub.
        limit: Read this many rows.
        stop_on_broken: Refuse the data at the first row that cannot be read instead of counting it.
        task: Name of the task of all rows. Default: what the data says, or nothing.
        progress: ``progress(rows, note)``, called after every batch.
        **options: See :class:`w2s_align.pairing.Options`; all pairs of a prompt are kept unless ``pairs_per_prompt``
            says otherwise.

    Returns:
        The pairs. Rows that could not be read are in ``dropped`` under the unit ``row``, which ``counts`` has
        as well.

    Raises:
        UserError: The source cannot be read, its layout is not known, or a row is broken and ``stop_on_broken`` set.
    """
    data = _read(
        read_batches(source, split=split, config_name=config_name, revision=revision, data_dir=data_dir),
        layout,
        columns or {},
        limit,
        stop_on_broken,
        task,
        progress or (lambda rows, note: None),
        all_turns=turns == "all",
    )
    options = {"pairs_per_prompt": ALL_PAIRS, **options}
    candidates, selection = _select(data, rule, margin, options)
    pairs = make_pairs(rule if data.layout == "ratings" else "imported", candidates, selection, options)
    broken, counts = data.dropped(), pairs.counts
    counts = replace(
        counts,
        given={"row": data.rows, **counts.given},
        kept={"row": data.rows - len(data.broken), **counts.kept},
        dropped={**count_dropped(broken), **counts.dropped},
        noticed=dict(data.noticed),
    )
    return replace(pairs, dropped=pa.concat_tables([broken, pairs.dropped]), counts=counts)


def glance_at_pairs(path: Path, layout: Layout | None, named: Mapping[str, str]) -> list[str]:
    """Return the columns of local preference data that would not be read, from its first rows.

    Args:
        path: A file or a folder of files.
        layout: The layout, or None to tell it from the columns.
        named: Which column holds what.

    Raises:
        UserError: The data cannot be read, or no layout fits its columns.
    """
    for batch in read_batches(path, rows=GLANCE_ROWS):
        if batch.numbers:
            _, mapping = find_layout(batch.columns, layout, named, batch.first)
            return sorted(_unread(batch.columns, mapping))
    return []


@dataclass
class _Data:
    """What was read.

    Attributes:
        layout: The layout of the data.
        rows: Number of rows, broken ones among them.
        prompts: Every prompt once: ``id``, ``messages``, ``task``.
        responses: ``prompt_id``, ``row``, ``text``, ``model``, ``score``, ``side``.
        broken: Rows that could not be read, with their places.
        seen: Ids of the prompts.
        noticed: For :attr:`Counts.noticed`.
        example: The first row.
        all_turns: Whether a response is all turns after what both chats share.
    """

    layout: Layout = "pairs"
    rows: int = 0
    prompts: list[pa.Table] = field(default_factory=list)
    responses: list[pl.DataFrame] = field(default_factory=list)
    broken: list[tuple[str, Broken]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    noticed: Counter[str] = field(default_factory=Counter)
    example: Mapping[str, Any] = field(default_factory=dict)
    all_turns: bool = False

    def is_new(self, one: str) -> bool:
        """Say whether a prompt comes for the first time."""
        new = one not in self.seen
        self.seen.add(one)
        return new

    def dropped(self) -> pa.Table:
        """Return the rows that could not be read as rows of ``DROPPED``."""
        shown: dict[str, int] = {}
        rows = []
        for place, row in self.broken:
            shown[row.reason] = shown.get(row.reason, 0) + 1
            excerpt = row.text if shown[row.reason] <= EXAMPLES else None
            rows.append({"prompt_id": "", "unit": "row", "reason": row.reason, "detail": place, "excerpt": excerpt})
        return pa.Table.from_pylist(rows, schema=DROPPED)


def _read(
    batches: Iterable[Batch],
    layout: Layout | None,
    named: Mapping[str, str],
    limit: int | None,
    stop: bool,
    task: str | None,
    progress: Callable[[int, str], None],
    *,
    all_turns: bool = False,
) -> _Data:
    data = _Data(all_turns=all_turns)
    mapping: dict[str, str] = {}
    for batch in batches:
        if limit is not None:
            batch = _head(batch, limit - data.rows)
        if batch.numbers and not mapping:
            data.example = batch.first
            data.layout, mapping = find_layout(batch.columns, layout, named, data.example)
            if all_turns and data.layout == "ratings":
                raise UserError(
                    "turns: all does not fit ratings, whose responses are texts.",
                    fix="Leave turns out, or give pairs, labels or comparisons whose responses are lists of messages.",
                )
        _take(batch, data, mapping, task)
        if stop and data.broken:
            place, row = data.broken[0]
            raise UserError(
                f"{place} cannot be read: {row.reason}.", why=row.text[:120], fix="Correct or remove the row."
            )
        progress(data.rows, f"{len(data.broken):,} broken" if data.broken else "")
        if limit is not None and data.rows >= limit:
            break
    if not data.seen:
        reasons = ", ".join(sorted({row.reason for _, row in data.broken})) or "there are no rows"
        needed = ("prompt", *(name for name in NEEDED[data.layout][0] if name != "prompt"))
        # A column for the prompt in which there is none: another one is proposed.
        tried = {"not the prompt" if n == "prompt" and reasons == "no prompt" else n: c for n, c in mapping.items()}
        tried.pop("input", None)
        if not all_turns and {row.reason for _, row in data.broken} & set(SEVERAL_TURNS):
            raise UserError(f"No row of {data.rows:,} can be read: {reasons}.", fix=USE_ALL_TURNS)
        fitting = proposed(needed, tried, data.example)
        raise UserError(
            f"No row of {data.rows:,} can be read: {reasons}.",
            why=f"Columns that were not read: {', '.join(sorted(_unread(data.example, mapping)))}." if fitting else "",
            fix=f"Say which column holds what; this could fit: {fitting}"
            if fitting
            else "Check the file and its columns.",
        )
    return data


def _unread(columns: Iterable[str], mapping: Mapping[str, str]) -> set[str]:
    """Return the columns that the mapping does not read."""
    columns = set(columns)
    return columns - {base(column, columns) for column in mapping.values()}


def _count_unread(batch: Batch, mapping: Mapping[str, str], noticed: Counter[str]) -> None:
    """Count for each column that is not read the rows that have something in it."""
    unread = _unread(batch.columns, mapping)
    for name in sorted(unread):
        if isinstance(batch.rows, list):
            filled = sum(row.get(name) not in (None, "", []) for row in batch.rows)
        else:
            filled = batch.rows.height - batch.rows[name].null_count()
        if filled:
            noticed[f"a column that was not read, {name}"] += filled


def _head(batch: Batch, rows: int) -> Batch:
    """Return the first rows of a batch, broken ones counted."""
    numbers = sorted([*batch.numbers, *batch.broken])[:rows]
    last = numbers[-1] if numbers else 0
    good = sum(number <= last for number in batch.numbers)
    broken = {number: row for number, row in batch.broken.items() if number <= last}
    return replace(batch, numbers=batch.numbers[:good], rows=batch.rows[:good], broken=broken)


def _take(batch: Batch, data: _Data, mapping: Mapping[str, str], task: str | None) -> None:
    """Read a batch into what there is."""
    import polars as pl

    lost = dict(batch.broken)
    base = data.rows
    data.rows += len(batch.numbers) + len(batch.broken)
    if batch.numbers:
        rows = batch.rows
        roles = ROLES_WITH_TOOLS if data.all_turns else ROLES
        if isinstance(rows, list):
            frame = from_rows(rows, mapping, roles)
        else:
            frame = from_columns(rows, _there(rows, mapping), roles)
        _count_unread(batch, mapping, data.noticed)
        if "doubted" in frame.columns:
            doubted = int((frame["doubted"] > 0).sum())
            data.noticed.update({DOUBTED: doubted} if doubted else {})
            frame = frame.drop("doubted")
        # Also a later file that has none of the columns has rows, and they are counted.
        numbers = pl.DataFrame({"row": pl.int_range(len(batch.numbers), dtype=pl.UInt32, eager=True)})
        whole = numbers.hstack(frame.get_columns())
        prompts, responses = prompts_and_responses(whole, data.layout, all_turns=data.all_turns)
        for at, reason in prompts.filter(pl.col("reason").is_not_null()).select("row", "reason").iter_rows():
            row = rows[at] if isinstance(rows, list) else rows.row(at, named=True)
            lost[batch.numbers[at]] = Broken(reason, _shown(row))
        good = prompts.filter(pl.col("reason").is_null())
        ids = [prompt_id(messages) for messages in good["prompt"].to_list()]
        fresh = [i for i, one in enumerate(ids) if data.is_new(one)]
        new = good[fresh]
        tasks = [task] * new.height if task is not None else new["task"].fill_null("").to_list()
        table = {"id": [ids[i] for i in fresh], "messages": new["prompt"].to_arrow().cast(MESSAGES), "task": tasks}
        data.prompts.append(pa.table(table, schema=_PROMPTS))
        mine = good.select("row", prompt_id=pl.Series(ids, dtype=pl.String))
        responses = responses.join(mine, on="row", maintain_order="left")
        data.responses.append(responses.with_columns(pl.col("row").cast(pl.Int64) + base))
    data.broken += [(f"{batch.place} {number}", lost[number]) for number in sorted(lost)]
    data.broken[MOST_EXCERPTS:] = [(place, Broken(row.reason, "")) for place, row in data.broken[MOST_EXCERPTS:]]


_PROMPTS = pa.schema([("id", pa.string()), ("messages", MESSAGES), ("task", pa.string())])


def _there(frame: pl.DataFrame, mapping: Mapping[str, str]) -> dict[str, str]:
    """Return the columns that a later file still has."""
    return {name: column for name, column in mapping.items() if base(column, frame.columns) in frame.columns}


def _shown(row: Mapping[str, Any]) -> str:
    import json

    return json.dumps(row, ensure_ascii=False, default=str)[:EXCERPT_CHARS]


def _select(data: _Data, rule: RatingRule, margin: float, options: Options) -> tuple[Candidates, Selection]:
    """Make candidates of the responses and find the pairs among them."""
    import polars as pl

    found = pl.concat(data.responses)
    if data.layout == "labels" and found["side"].n_unique() == 1:
        raise UserError(
            f"All {found.height:,} responses are labeled {'bad' if found['side'][0] else 'good'}.",
            why="A pair needs a good and a bad response of one prompt.",
            fix="Use data with both labels, or map the column of the labels: columns: {label: <column>}.",
        )
    # Two models of the same name, or of none, are told apart by the number of the sample.
    found = found.with_columns(sample=pl.int_range(pl.len(), dtype=pl.Int32).over("prompt_id"))
    responses = _responses(found)
    found = found.drop("text", "turns", strict=False).with_columns(
        score=pl.when(pl.col("score").is_finite()).then("score")
    )
    filters = options.get("filters") or Filters()
    prompts = pa.concat_tables(data.prompts)
    if data.layout == "ratings":
        scores = found.select("prompt_id", "sample", "model", scorer=pl.lit("rating"), value="score").to_arrow()
        by = RULES[rule].of(margin=margin) if margin else RULES[rule].of()
        return by.choose([responses, scores], prompts, filters, options.get("seed", 0))
    candidates = make_candidates(prompts, [responses], filters=filters)
    mine = found[candidates.frame["row"]].select("score", "side", link="row")
    frame = candidates.frame.drop("score").hstack(mine)
    if data.layout == "labels":  # the k-th good response of a prompt meets the k-th bad one
        frame = frame.with_columns(link=pl.int_range(pl.len(), dtype=pl.Int64).over("prompt", "side"))
    return _by_side(replace(candidates, frame=frame), data.layout)


def _responses(found: pl.DataFrame) -> pa.Table:
    columns = {name: pa.nulls(found.height, Response.SCHEMA.field(name).type) for name in Response.SCHEMA.names}
    columns |= {name: found[name].to_arrow() for name in ("prompt_id", "sample", "model", "text")}
    columns["finish_reason"] = pa.repeat(pa.scalar("stop"), found.height)
    table = pa.table(columns).cast(Response.SCHEMA)
    return (
        table.append_column("turns", found["turns"].to_arrow().cast(MESSAGES)) if "turns" in found.columns else table
    )


def _by_side(candidates: Candidates, layout: Layout) -> tuple[Candidates, Selection]:
    """Pair the responses that the data pairs; one without its other side is set aside."""
    import polars as pl

    frame = candidates.frame
    sides = [
        frame.filter(pl.col("side") == number).select("prompt", "link", **{side: "row", f"score_{side}": "score"})
        for number, side in enumerate(("chosen", "rejected"))
    ]
    pairs = sides[0].join(sides[1], on=["prompt", "link"]).sort("prompt", "link")
    pairs = pairs.select(PAIR_COLUMNS)
    alone = ~pl.col("row").is_in(pl.concat([pairs["chosen"], pairs["rejected"]]).implode())
    reason = "no response with the other label" if layout == "labels" else "the other side is dropped"
    lost = frame.filter(alone).with_columns(reason=pl.lit(reason)).select(candidates.faults.columns)
    light = frame.filter(~alone).drop("side", "link")
    candidates = replace(candidates, frame=light, faults=pl.concat([candidates.faults, lost]))
    declined = prompts_without(pairs, candidates).with_columns(reason=pl.lit("no response"))
    return candidates, Selection(pairs, declined)
