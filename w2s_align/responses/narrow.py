"""Make selections comparable: the same prompts, one response per prompt, the same number, without degenerate traces.

Reads a :class:`~w2s_align.responses.select.Selected` and returns a smaller one; all that goes is listed and counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import pyarrow as pa

from w2s_align.pairing.counts import Unit, count_dropped
from w2s_align.pairing.dropped import DROPPED
from w2s_align.pairing.selection import random_draws
from w2s_align.responses.select import Selected

if TYPE_CHECKING:
    import polars as pl

NOT_SHARED = "prompt that another selection lacks"
NOT_APART = "prompt that another selection has"
ANOTHER_DRAWN = "another one of the prompt was drawn"
BEYOND = "beyond the matched number"


def without_reasons(selected: Selected, reasons: Sequence[str | None]) -> Selected:
    """Leave out the responses that have a reason.

    Args:
        selected: The selection.
        reasons: For each of its rows why it is left out, or None.
    """
    rows = pa.array([row for row, reason in enumerate(reasons) if reason is None], pa.int64())
    gone = [(row, reason) for row, reason in enumerate(reasons) if reason is not None]
    if not gone:
        return selected
    columns = [selected.table[name].to_pylist() for name in ("prompt_id", "model", "sample")]
    lost = [
        {
            "prompt_id": columns[0][row],
            "unit": "response",
            "reason": reason,
            "detail": f"{columns[1][row]} #{columns[2][row]}",
            "excerpt": None,
        }
        for row, reason in gone
    ]
    dropped = pa.concat_tables([selected.dropped, pa.Table.from_pylist(lost, schema=DROPPED)])
    table = selected.table.take(rows)
    kept: dict[Unit, int] = {"prompt": len(set(table["prompt_id"].to_pylist())), "response": table.num_rows}
    counts = replace(selected.counts, kept=kept, dropped=count_dropped(dropped))
    return Selected(table, dropped, counts)


def narrowed(
    selected: Selected,
    *,
    shared_with: Sequence[pa.Table] = (),
    apart_from: Sequence[pa.Table] = (),
    one_per_prompt: bool = False,
    number: int | None = None,
    seed: int = 0,
) -> Selected:
    """Keep prompts that other selections have too, or lack; one response of each, a given number; in this order.

    Draws depend on the seed and the response's own prompt, model and sample, so that other rows change none.

    Args:
        selected: The selection.
        shared_with: Other responses; prompts that one of them lacks are left out.
        apart_from: Other responses; prompts that one of them has are left out.
        one_per_prompt: Draw one response of each prompt.
        number: Draw so many responses; all stay where there are fewer.
        seed: Seed of the draws.
    """
    for others, wanted, reason in ((shared_with, True, NOT_SHARED), (apart_from, False, NOT_APART)):
        for other in others:
            known = set(other["prompt_id"].to_pylist())
            ids = selected.table["prompt_id"].to_pylist()
            selected = without_reasons(selected, [None if (i in known) == wanted else reason for i in ids])
    if one_per_prompt:
        drawn = _in_drawn_order(selected.table, seed).unique("prompt_id", keep="first")
        selected = _only(selected, drawn, ANOTHER_DRAWN)
    if number is not None:
        selected = _only(selected, _in_drawn_order(selected.table, seed).head(number), BEYOND)
    return selected


def _in_drawn_order(table: pa.Table, seed: int) -> pl.DataFrame:
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(table.select(["prompt_id", "model", "sample"]))).with_row_index("row")
    labels = frame.select(pl.concat_str("prompt_id", "model", "sample", separator="\x1f")).to_series()
    return frame.with_columns(draw=random_draws(labels, seed)).sort("draw")


def _only(selected: Selected, rows: pl.DataFrame, reason: str) -> Selected:
    kept = set(rows["row"].to_list())
    return without_reasons(selected, [None if row in kept else reason for row in range(selected.table.num_rows)])


def precision_and_recall(selected: pa.Table, given: pa.Table, gold: pa.Table) -> dict[str, float | int | None]:
    """Say how right a selection is: for diagnosis alone, as nothing that selects may know it.

    Args:
        selected: The responses that were kept.
        given: The responses that it was selected from, of the sides that were kept.
        gold: Their scores against gold answers (:class:`w2s_align.records.Score`), 1 for right.

    Returns:
        ``precision`` (right ones among the kept), ``recall`` (kept ones among the right), each None where it would
        divide by nothing, with the numbers behind them: ``kept_right``, ``kept``, ``right``, and ``unscored`` ones of
        the kept.
    """
    keys = ("prompt_id", "model", "sample")
    rows = zip(*(gold[name].to_pylist() for name in (*keys, "value")), strict=True)
    values = {(prompt_id, model, sample): value for prompt_id, model, sample, value in rows}

    def right(table: pa.Table) -> list[bool | None]:
        found = (values.get(key) for key in zip(*(table[name].to_pylist() for name in keys), strict=True))
        return [None if value is None else value >= 1.0 for value in found]

    kept, every = right(selected), right(given)
    scored, available = len(kept) - kept.count(None), every.count(True)
    return {
        "precision": kept.count(True) / scored if scored else None,
        "recall": kept.count(True) / available if available else None,
        "kept_right": kept.count(True),
        "kept": len(kept),
        "right": available,
        "unscored": kept.count(None),
    }
