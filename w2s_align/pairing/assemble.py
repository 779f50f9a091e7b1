"""The common end of every pair rule: filters, cap per prompt, control, the table, and the account of what was lost.

Reads candidates and what a rule selected, returns :class:`Pairs`. Only ``prompts.id``, ``messages`` and ``task`` are
read of the prompts: without gold answers the same bytes come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.controls import CONTROLS, Control, reverse, swap_half, tie
from w2s_align.pairing.decontaminate import Items, Leaks
from w2s_align.pairing.filters import filter_pairs, match_lengths, with_sides
from w2s_align.pairing.prompt_filters import filter_prompts
from w2s_align.pairing.rules.model_rules import Selection, check_choice
from w2s_align.pairing.settings import Filters
from w2s_align.records import MESSAGES, Pair

if TYPE_CHECKING:
    import polars as pl

    from w2s_align.pairing.audit import Audit

ASSEMBLE_ROWS = 50_000

DROPPED = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("unit", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("excerpt", pa.string()),
    ]
)
"""What was lost: a ``response``, a ``pair``, or a whole ``prompt`` (that ended with no pair), and why. The first few
rows of each reason show their texts as ``excerpt``."""
EXAMPLES, EXCERPT_CHARS = 3, 300

LENGTHS = pa.schema(
    [
        pa.field("chosen_chars", pa.int32(), nullable=False),
        pa.field("rejected_chars", pa.int32(), nullable=False),
        pa.field("chosen_tokens", pa.int32()),
        pa.field("rejected_tokens", pa.int32()),
    ]
)


@dataclass(frozen=True)
class Pairs:
    """The result of a pair rule.

    Attributes:
        table: Rows of :class:`w2s_align.records.Pair`, in the order of the prompts.
        dropped: Rows of :data:`DROPPED`.
        counts: Sums that add up: ``prompts`` = ``prompts with pairs`` + all ``prompts dropped: <reason>``;
            ``responses`` = ``responses usable`` + all ``responses dropped: <reason>``; ``pairs found`` = ``pairs`` +
            ``pairs over the cap`` + all ``pairs dropped: <reason>`` (not under the ``tied`` control, which makes pairs
            that the rule did not find).
        lengths: Rows of :data:`LENGTHS`, one for each row of ``table``; tokens are null where the generator did not
            say.
        tasks: ``Prompt.task`` of each row of ``table``.
        leaks: What of the evaluation sets was found in the prompts; None when it was not looked for.
    """

    table: pa.Table
    dropped: pa.Table
    counts: dict[str, int]
    lengths: pa.Table
    tasks: pa.ChunkedArray
    leaks: Leaks | None = None

    def audit(self, gold_scores: pa.Table | None = None, generator_licences: Mapping[str, str] | None = None) -> Audit:
        """Describe the pairs: see :func:`w2s_align.pairing.audit.audit`.

        Args:
            gold_scores: Scores of the responses against gold answers, for the agreement with gold.
            generator_licences: Licence of the models that wrote the responses, by name, as far as you know.
        """
        from w2s_align.pairing.audit import audit

        return audit(
            self.table,
            lengths=self.lengths,
            tasks=self.tasks,
            gold_scores=gold_scores,
            dropped=self.dropped,
            leaks=self.leaks,
            generator_licences=generator_licences,
        )


def finish(
    rule: str,
    candidates: Candidates,
    selection: Selection,
    filters: Filters,
    control: Control,
    pairs_per_prompt: int,
    seed: int,
    evaluations: Mapping[str, Items] | None = None,
) -> Pairs:
    """Filter, cap and control the selected pairs, and make the table.

    Args:
        rule: Name of the rule; a column ``rule`` of the selected pairs goes before it.
        candidates: What the rule chose from.
        selection: What it chose.
        filters: What to drop.
        control: Which control to make instead of the pairs.
        pairs_per_prompt: At most this many pairs for one prompt.
        seed: Seed of every random choice.
        evaluations: Items of evaluation sets by their names, which no prompt may contain.

    Raises:
        UserError: The control cannot be made, or an option is out of range.
    """
    import polars as pl

    check_choice("control", control, CONTROLS)
    if pairs_per_prompt < 1:
        raise UserError(f"pairs_per_prompt is {pairs_per_prompt}.", fix="Use 1 or more.")
    kept, removed = filter_pairs(selection.pairs, candidates, filters)
    kept, unclean, leaks = filter_prompts(kept, candidates, filters, evaluations)
    removed = pl.concat([removed, unclean], how="diagonal")
    capped = kept.group_by("prompt", maintain_order=True).head(pairs_per_prompt)
    over_cap = kept.height - capped.height
    if filters.match_lengths:
        capped, unmatched = match_lengths(capped, candidates, filters, seed)
        removed = pl.concat([removed, unmatched], how="diagonal")
    lost = _first_reasons(removed).join(
        capped.select("prompt").unique(), on="prompt", how="anti", maintain_order="left"
    )
    declined = pl.concat([selection.declined, lost])
    final = capped
    if control == "tied":
        final, untied = tie(capped, candidates, seed)
        declined = pl.concat([declined, untied])
    elif control == "shuffled":
        final = swap_half(capped, candidates, seed)
    final = final.sort("prompt", maintain_order=True)
    if "rule" not in final.columns:
        final = final.with_columns(rule=pl.lit(rule))
    table = _assemble(final, candidates, suffix="" if control in ("none", "reversed") else f"+{control}")
    lengths = _lengths(final, candidates)
    if control == "reversed":
        table = reverse(table)
        lengths = lengths.select([1, 0, 3, 2]).rename_columns(LENGTHS.names).cast(LENGTHS)
    dropped = dropped_rows(candidates, declined, removed)
    counts = {
        "prompts": candidates.prompts.num_rows + candidates.refused.height,
        "prompts with pairs": final["prompt"].n_unique(),
        "responses": candidates.responses.num_rows,
        "responses usable": candidates.frame.height,
        "pairs found": selection.pairs.height,
        "pairs": final.height,
        "pairs over the cap": over_cap,
    }
    if "task" in candidates.prompts.column_names:
        tasks = candidates.prompts["task"].take(final["prompt"].to_arrow())
    else:
        tasks = pa.chunked_array([pa.array([""] * final.height, pa.string())])
    return Pairs(table, dropped, counts | dropped_counts(dropped), lengths, tasks, leaks)


def _first_reasons(removed: pl.DataFrame) -> pl.DataFrame:
    return removed.select("prompt", "reason").unique("prompt", keep="first", maintain_order=True)


def _assemble(pairs: pl.DataFrame, candidates: Candidates, suffix: str) -> pa.Table:
    """Take the texts of the selected rows and make rows of the Pair schema, some thousands at a time."""
    import polars as pl

    wide = with_sides(pairs, candidates)
    # Arrow's take copies a whole chunked column of text before it takes from it; polars takes from views.
    texts = pl.Series(pl.from_arrow(candidates.responses["text"]), dtype=pl.String)
    parts = [Pair.SCHEMA.empty_table()]
    for start in range(0, wide.height, ASSEMBLE_ROWS):
        part = wide.slice(start, ASSEMBLE_ROWS)
        first = part["prompt"][0]  # pairs are in the order of the prompts: a part needs a stretch of them
        prompts = candidates.prompts.slice(first, part["prompt"][-1] - first + 1)
        index = (part["prompt"] - first).to_arrow()
        columns = {
            "prompt": prompts["messages"].take(index),
            "chosen": assistant_turns(texts.gather(part["chosen"]).to_arrow().cast(pa.string())),
            "rejected": assistant_turns(texts.gather(part["rejected"]).to_arrow().cast(pa.string())),
            "prompt_id": prompts["id"].take(index),
            "chosen_model": part["chosen_model"].to_arrow(),
            "rejected_model": part["rejected_model"].to_arrow(),
            "chosen_sample": part["chosen_sample"].to_arrow(),
            "rejected_sample": part["rejected_sample"].to_arrow(),
            "score_chosen": part["score_chosen"].to_arrow(),
            "score_rejected": part["score_rejected"].to_arrow(),
            "delta": (part["score_chosen"] - part["score_rejected"]).to_arrow(),
            "rule": (part["rule"] + suffix).to_arrow(),
        }
        parts.append(pa.table(columns).cast(Pair.SCHEMA))
    return pa.concat_tables(parts)


def assistant_turns(contents: pa.Array) -> pa.Array:
    """Turn a column of texts into a column of chats with one assistant turn each."""
    roles = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(contents), np.int8)), ["assistant"]).cast(pa.string())
    turns = pa.StructArray.from_arrays([roles, contents], fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(contents) + 1, dtype=np.int32)), turns).cast(MESSAGES)


def _lengths(pairs: pl.DataFrame, candidates: Candidates) -> pa.Table:
    return with_sides(pairs, candidates).select(LENGTHS.names).to_arrow().cast(LENGTHS)


def dropped_rows(candidates: Candidates, declined: pl.DataFrame, removed: pl.DataFrame | None) -> pa.Table:
    """List everything that was lost: responses, pairs, and prompts that ended without anything.

    Args:
        candidates: The usable and the unusable responses.
        declined: ``prompt`` and ``reason`` of the lost prompts.
        removed: ``prompt``, ``chosen``, ``rejected`` and ``reason`` of the lost pairs.

    Returns:
        Rows of :data:`DROPPED`.
    """
    import polars as pl

    faults = candidates.faults.sort("prompt", "source", "model", "sample", nulls_last=True)
    stray = pl.Series("stray", pl.from_arrow(candidates.responses["prompt_id"])).gather(faults["row"])
    detail = pl.format("{} #{}", "model", "sample")
    unit = pl.lit("response").alias("unit")
    parts = [faults.select(unit, "prompt", "reason", detail=detail, stray=stray, first="row")]
    if removed is not None:
        notes = removed.with_columns(note=pl.lit(None, pl.String)) if "note" not in removed.columns else removed
        sides = with_sides(notes.select("prompt", "chosen", "rejected", "reason", "note"), candidates)
        detail = pl.format("{} #{} over {} #{}", "chosen_model", "chosen_sample", "rejected_model", "rejected_sample")
        detail = pl.concat_str(detail, "note", separator=": ", ignore_nulls=True)
        unit = pl.lit("pair").alias("unit")
        parts.append(sides.select(unit, "prompt", "reason", detail=detail, first="chosen", second="rejected"))
    # A prompt without enough usable responses lacks them for a reason: the faults of its responses.
    missing = pl.col("reason").str.contains(r"^no (\w+ )?response$|^one response only$")
    why = faults.group_by("prompt").agg(why=pl.col("reason").unique().sort().str.join(", "))
    prompts = declined.join(why, on="prompt", how="left", maintain_order="left").sort("prompt", maintain_order=True)
    detail = pl.when(missing).then(pl.col("why")).fill_null("")
    parts.append(prompts.select(pl.lit("prompt").alias("unit"), "prompt", "reason", detail=detail))
    empty = {"prompt": pl.UInt32, "stray": pl.String, "first": pl.Int64, "second": pl.Int64}
    parts = [
        part.with_columns(pl.lit(None, kind).alias(n) for n, kind in empty.items() if n not in part.columns).cast(
            empty
        )
        for part in parts
    ]
    everything = pl.concat(parts, how="diagonal")
    everything = everything.with_columns(excerpt=_excerpts(everything, candidates))
    ids = pl.DataFrame({"id": pl.from_arrow(candidates.prompts["id"])}).with_row_index("prompt")
    everything = everything.join(ids, on="prompt", how="left", maintain_order="left")
    everything = everything.select(
        pl.coalesce("id", "stray").alias("prompt_id"), "unit", "reason", "detail", "excerpt"
    )
    again = candidates.refused.select(
        "prompt_id",
        "reason",
        unit=pl.lit("prompt"),
        detail=pl.lit(""),
        excerpt=pl.lit(None, pl.String),
    ).select(everything.columns)
    return pl.concat([everything, again]).to_arrow().cast(DROPPED)


def _excerpts(dropped: pl.DataFrame, candidates: Candidates) -> pl.Series:
    """Return the beginning of the prompt and of the responses for the first few rows of each unit and reason."""
    import polars as pl

    place = pl.int_range(pl.len()).over("unit", "reason")
    shown = dropped.with_row_index("at").filter(place < EXAMPLES).select("at", "prompt", "first", "second")
    found: list[str | None] = []
    for _, prompt, first, second in shown.iter_rows():
        lines = []
        if prompt is not None:
            lines.append(("prompt", candidates.prompts["messages"][prompt].as_py()[-1]["content"]))
        names = ("response", "") if second is None else ("chosen", "rejected")
        for name, row in zip(names, (first, second), strict=True):
            text = None if row is None else candidates.responses["text"][row].as_py()
            lines += [] if text is None else [(name, text)]
        found.append("\n".join(f"{name}: {_cut(text)}" for name, text in lines) or None)
    column = pl.Series("excerpt", [None], pl.String).new_from_index(0, dropped.height)
    return column.scatter(shown["at"], pl.Series(found, dtype=pl.String)) if shown.height else column


def _cut(text: str) -> str:
    return text if len(text) <= EXCERPT_CHARS else f"{text[:EXCERPT_CHARS]}\N{HORIZONTAL ELLIPSIS}"


def dropped_counts(dropped: pa.Table) -> dict[str, int]:
    """Return how many rows were lost, as ``prompts dropped: <reason>`` and the like."""
    import polars as pl

    groups = pl.DataFrame(pl.from_arrow(dropped)).group_by("unit", "reason").len().sort("unit", "reason")
    return {f"{unit}s dropped: {reason}": number for unit, reason, number in groups.iter_rows()}
