"""The common end of every pair rule: filters, cap per prompt, control, the table, and the counts of what was lost.

Reads candidates and what a rule selected, returns :class:`Pairs`. Only ``prompts.id``, ``messages`` and ``task`` are
read of the prompts: without gold answers the same bytes come out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypedDict

import numpy as np
import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.pairing.candidates import Candidates
from w2s_align.pairing.controls import CONTROLS, Control, reverse, swap_half, tie
from w2s_align.pairing.counts import Counts, count_dropped
from w2s_align.pairing.decontaminate import Items, Leaks
from w2s_align.pairing.dropped import dropped_rows
from w2s_align.pairing.filters import balance_lengths, filter_pairs, match_lengths, with_sides
from w2s_align.pairing.prompt_filters import filter_prompts
from w2s_align.pairing.selection import Selection
from w2s_align.pairing.settings import Filters
from w2s_align.records import MESSAGES, Pair

if TYPE_CHECKING:
    import polars as pl

    from w2s_align.pairing.audit import Audit

ASSEMBLE_ROWS = 50_000
"""Pairs whose texts are taken at a time: the working copies of one part are all the extra memory that it takes."""

LENGTHS = pa.schema(
    [
        pa.field("chosen_chars", pa.int32(), nullable=False),
        pa.field("rejected_chars", pa.int32(), nullable=False),
        pa.field("chosen_tokens", pa.int32()),
        pa.field("rejected_tokens", pa.int32()),
    ]
)
"""Lengths of both sides of a pair; tokens are null where the generator did not say."""


class Options(TypedDict, total=False):
    """What every rule takes by keyword.

    Attributes:
        filters: What to drop; the defaults of :class:`Filters` when not given.
        control: ``none`` (the default), or ``reversed``, ``tied`` or ``shuffled`` pairs instead: see ``controls.py``.
        pairs_per_prompt: At most this many pairs for one prompt; 1 when not given.
        seed: Seed of every random choice; 0 when not given.
        evaluations: Items of evaluation sets by their names; pairs of prompts that contain one are dropped (see
            ``decontaminate.py``).

    Every rule raises a :class:`~w2s_align.errors.UserError` when a table lacks a column, scores are of several
    scorers or contradict each other, or a control cannot be made of the responses.
    """

    filters: Filters
    control: Control
    pairs_per_prompt: int
    seed: int
    evaluations: Mapping[str, Items]


@dataclass(frozen=True)
class Pairs:
    """The result of a pair rule.

    Attributes:
        table: Rows of :class:`w2s_align.records.Pair`, in the order of the prompts.
        dropped: Rows of :data:`w2s_align.pairing.dropped.DROPPED`.
        counts: What went in, what is left and what was dropped, of prompts, responses and pairs.
        lengths: Rows of :data:`LENGTHS`, one for each row of ``table``.
        tasks: ``Prompt.task`` of each row of ``table``.
        leaks: What of the evaluation sets was found in the prompts; None when it was not looked for.
    """

    table: pa.Table
    dropped: pa.Table
    counts: Counts
    lengths: pa.Table
    tasks: pa.ChunkedArray
    leaks: Leaks | None = None

    def audit(self, gold_scores: pa.Table | None = None, generator_licenses: Mapping[str, str] | None = None) -> Audit:
        """Describe the pairs: see :func:`w2s_align.pairing.audit.audit`.

        Args:
            gold_scores: Scores of the responses against gold answers, for the agreement with gold.
            generator_licenses: License of the models that wrote the responses, by name, as far as you know.
        """
        from w2s_align.pairing.audit import audit

        return audit(
            self.table,
            lengths=self.lengths,
            tasks=self.tasks,
            gold_scores=gold_scores,
            dropped=self.dropped,
            leaks=self.leaks,
            generator_licenses=generator_licenses,
        )


def make_pairs(rule: str, candidates: Candidates, selection: Selection, options: Options) -> Pairs:
    """Filter, cap and control the selected pairs, and make the table.

    Args:
        rule: Name of the rule; a column ``rule`` of the selected pairs goes before it.
        candidates: What the rule chose from.
        selection: What it chose.
        options: What to do with it.

    Raises:
        UserError: The control cannot be made, or an option is out of range.
    """
    import polars as pl

    filters, control = options.get("filters") or Filters(), options.get("control", "none")
    pairs_per_prompt, seed = options.get("pairs_per_prompt", 1), options.get("seed", 0)
    if control not in CONTROLS:
        raise UserError(f"control cannot be {control!r}.", fix=f"Use one of: {', '.join(CONTROLS)}.")
    if pairs_per_prompt < 1:
        raise UserError(f"pairs_per_prompt is {pairs_per_prompt}.", fix="Use 1 or more.")
    kept, removed = filter_pairs(selection.pairs, candidates, filters)
    kept, unclean, leaks = filter_prompts(kept, candidates, filters, options.get("evaluations"))
    removed = pl.concat([removed, unclean], how="diagonal")
    capped = kept.group_by("prompt", maintain_order=True).head(pairs_per_prompt)
    over_the_cap = kept.height - capped.height
    if filters.match_lengths:  # after the cap: it is the pairs that are trained on whose lengths are to match
        capped, unmatched = match_lengths(capped, candidates, filters, seed)
        removed = pl.concat([removed, unmatched], how="diagonal")
    if filters.balance_lengths:
        capped, unbalanced = balance_lengths(capped, candidates, filters)
        removed = pl.concat([removed, unbalanced], how="diagonal")
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
    lengths = with_sides(final, candidates).select(LENGTHS.names).to_arrow().cast(LENGTHS)
    if control == "reversed":
        table = reverse(table)
        lengths = lengths.select([1, 0, 3, 2]).rename_columns(LENGTHS.names).cast(LENGTHS)
    dropped = dropped_rows(candidates, declined, removed)
    counts = Counts(
        given={
            "prompt": candidates.prompts.num_rows + candidates.refused.height,
            "response": candidates.responses.num_rows,
            "pair": selection.pairs.height,
        },
        kept={"prompt": final["prompt"].n_unique(), "response": candidates.frame.height, "pair": final.height},
        dropped=count_dropped(dropped, over_the_cap),
        comparisons=selection.comparisons,
    )
    if "task" in candidates.prompts.column_names:
        tasks = candidates.prompts["task"].take(final["prompt"].to_arrow())
    else:
        tasks = pa.chunked_array([pa.array([""] * final.height, pa.string())])
    return Pairs(table, dropped, counts, lengths, tasks, leaks)


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
            **{side: _turns(candidates, texts, part[side]) for side in ("chosen", "rejected")},
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


def _turns(candidates: Candidates, texts: pl.Series, rows: pl.Series) -> pa.Array:
    """Return responses as messages: one turn of the assistant, or the turns that a response has."""
    import pyarrow.compute as pc

    plain = assistant_turns(texts.gather(rows).to_arrow().cast(pa.string()))
    if "turns" not in candidates.responses.column_names:
        return plain
    several = candidates.responses["turns"].take(rows.to_arrow()).combine_chunks()
    index = np.arange(len(rows)) + len(rows) * np.asarray(pc.is_null(several))
    return pa.concat_arrays([several, plain]).take(pa.array(index))


def assistant_turns(contents: pa.Array) -> pa.Array:
    """Turn a column of texts into a column of chats with one assistant turn each."""
    roles = pa.DictionaryArray.from_arrays(pa.array(np.zeros(len(contents), np.int8)), ["assistant"]).cast(pa.string())
    turns = pa.StructArray.from_arrays([roles, contents], fields=list(MESSAGES.value_type))
    return pa.ListArray.from_arrays(pa.array(np.arange(len(contents) + 1, dtype=np.int32)), turns).cast(MESSAGES)
