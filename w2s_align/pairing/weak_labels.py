"""Weak labels of pairs: which of two responses a model finds better, without a look at which is called chosen.

A pair that is to be labeled is a set of two responses. Its id and the order of its sides come from their texts, never
from what the data call chosen, so that pairs whose gold labels are swapped or unknown get the same labels, in the same
bytes. Reads tables of the Pair schema and scores of their sides (``Score.SCHEMA``); returns pairs in the new order.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy.special import expit

from w2s_align.errors import UserError
from w2s_align.pairing.assemble import LENGTHS, Pairs
from w2s_align.pairing.counts import Counts, Unit, count_dropped
from w2s_align.pairing.dropped import DROPPED
from w2s_align.pairing.weights import Weights, weigh
from w2s_align.records import PAIR_TERMS, Pair, Prompt, Response, prompt_id, to_table

RULE = "weak_label"
"""What ``Pair.rule`` says of them."""
UNSURE = "the label is less sure than least_confidence"
UNSCORED = "a response has no score"
UNREADABLE = "a side is not one turn of the assistant"
AGAIN = "the same pair stands twice"
OWN = "the model was trained on it"


@dataclass(frozen=True)
class Sides:
    """The two sides of each pair, in an order that depends on their texts alone.

    Attributes:
        ids: Id of each pair that can be labeled, each once.
        rows: Its row in the table of pairs.
        swapped: Whether its first side is the one that the table calls rejected.
        dropped: What cannot be labeled: rows of the table by reason.
    """

    ids: list[str]
    rows: list[int]
    swapped: list[bool]
    dropped: dict[int, str]


def sides_of(pairs: pa.Table) -> Sides:
    """Return the sides of pairs.

    Args:
        pairs: Rows of :class:`w2s_align.records.Pair`.
    """
    found = Sides([], [], [], {})
    seen: set[str] = set()
    columns = [pairs[name].to_pylist() for name in ("prompt", "chosen", "rejected")]
    for row, (prompt, chosen, rejected) in enumerate(zip(*columns, strict=True)):
        if any(len(side) != 1 or not side[0]["content"] for side in (chosen, rejected)):
            found.dropped[row] = UNREADABLE
            continue
        texts = [side[0]["content"] for side in (chosen, rejected)]
        key = pair_id(prompt, *texts)
        if key in seen:
            found.dropped[row] = AGAIN
            continue
        seen.add(key)
        found.ids.append(key)
        found.rows.append(row)
        found.swapped.append(_digest(texts[1]) < _digest(texts[0]))
    return found


def pair_id(prompt: list[dict[str, str]], one: str, other: str) -> str:
    """Return the id of a pair: of its prompt and its two responses, whichever is called chosen."""
    return _digest(json.dumps([prompt_id(prompt), *sorted([_digest(one), _digest(other)])]))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def sides_as_responses(pairs: pa.Table, sides: Sides, model: str = "") -> tuple[pa.Table, pa.Table]:
    """Return pairs as prompts and responses, which a scorer reads: sample 0 is the first side, sample 1 the second.

    Args:
        pairs: Rows of :class:`w2s_align.records.Pair`.
        sides: Their sides.
        model: What the responses call their model; scores repeat it.
    """
    chosen, rejected, asked = (pairs[name].to_pylist() for name in ("chosen", "rejected", "prompt"))
    prompts, responses = [], []
    for key, row, swapped in zip(sides.ids, sides.rows, sides.swapped, strict=True):
        prompts.append(Prompt(key, asked[row], task="pairs"))
        texts = [side[row][0]["content"] for side in (chosen, rejected)]
        responses += [Response(key, at, model, text) for at, text in enumerate(texts[::-1] if swapped else texts)]
    return to_table(prompts, Prompt), to_table(responses, Response)


def gaps_of(sides: Sides, scores: pa.Table) -> NDArray[np.float64]:
    """Return by how much the first side of each pair is scored above the second; NaN where one has no score.

    Args:
        sides: The sides of pairs.
        scores: Scores of them, of :func:`sides_as_responses`.

    Raises:
        UserError: They are of other pairs.
    """
    columns = (scores[name].to_pylist() for name in ("prompt_id", "sample", "value"))
    found = {(key, sample): value for key, sample, value in zip(*columns, strict=True)}
    missing = sum((key, at) not in found for key in sides.ids for at in (0, 1))
    if missing:
        raise UserError(
            f"{missing:,} of {2 * len(sides.ids):,} responses have no row in the scores.",
            "The scores are of other pairs.",
            "Give the scores that step score_pairs made of these pairs.",
        )
    values = [[found[key, at] for at in (0, 1)] for key in sides.ids]
    table = np.asarray([[np.nan if value is None else value for value in row] for row in values], dtype=float)
    return np.asarray(table[:, 0] - table[:, 1]) if len(table) else np.zeros(0)


def gaps_to_gold(sides: Sides, scores: pa.Table) -> NDArray[np.float64]:
    """Return by how much the chosen side of each pair is scored above the rejected one: above 0 is right."""
    return np.where(np.asarray(sides.swapped, dtype=bool), -1, 1) * gaps_of(sides, scores)


def label_pairs(
    pairs: pa.Table,
    scores: pa.Table,
    *,
    temperature: float = 1.0,
    least_confidence: float = 0.5,
    weights: Weights = "none",
    gold_order: bool = False,
    lengths: pa.Table | None = None,
) -> Pairs:
    """Put the response first that a model scores higher.

    The label's probability is sigmoid(difference / temperature). Of equal scores the side comes first that does so in
    :class:`Sides`, whatever the gold label is.

    Args:
        pairs: Rows of :class:`w2s_align.records.Pair`; which side is chosen is not read, but for ``gold_order``.
        scores: Scores of the sides of these pairs.
        temperature: What differences are divided by.
        least_confidence: Pairs whose label is less probable than this are left out.
        weights: What a pair weighs in its loss; ``confidence`` reads differences after the temperature.
        gold_order: Keep whether the order is that of the pairs, in a column for simulated conflicts.
        lengths: Rows of ``LENGTHS``, one for each pair.

    Raises:
        UserError: Scores of other pairs, or an option out of range.
    """
    if not (0.5 <= least_confidence < 1 and temperature > 0):
        raise UserError("least_confidence is at least 0.5 and below 1, and a temperature is above 0.")
    sides = sides_of(pairs)
    gaps = gaps_of(sides, scores) / temperature
    first = np.where(np.isnan(gaps), True, gaps >= 0)
    p = expit(np.abs(gaps))
    dropped = dict(sides.dropped)
    kept = []
    for place, row in enumerate(sides.rows):
        reason = UNSCORED if np.isnan(gaps[place]) else UNSURE if p[place] < least_confidence else None
        if reason is None:
            kept.append(place)
        else:
            dropped[row] = reason
    places = np.asarray(kept, dtype=np.int64)
    flipped = np.asarray(sides.swapped, dtype=bool) == first  # the chosen side of the table is now the rejected one
    taken = [sides.rows[place] for place in kept]
    kept_pairs = pairs.take(pa.array(taken, pa.int64()))
    made = _in_order(kept_pairs, flipped[places], ~first[places], np.abs(gaps[places]))
    table = weigh(made, weights)
    if "p_pref" not in table.column_names:
        table = table.append_column(PAIR_TERMS.field("p_pref"), pa.array(p[places]))
    if gold_order:
        table = table.append_column(PAIR_TERMS.field("gold_order"), pa.array(~flipped[places]))
    lost = _dropped(pairs, dropped)
    given: dict[Unit, int] = {"prompt": _prompts(pairs), "pair": pairs.num_rows}
    left: dict[Unit, int] = {"prompt": _prompts(made), "pair": len(kept)}
    counts = Counts(given, left, count_dropped(lost))
    tasks = pa.chunked_array([pa.array([""] * len(kept), pa.string())])
    return Pairs(table, lost, counts, _lengths(made, lengths, taken, flipped[places]), tasks)


def _prompts(pairs: pa.Table) -> int:
    return len(set(pairs["prompt_id"].to_pylist()))


def _in_order(
    pairs: pa.Table, flipped: NDArray[np.bool_], later: NDArray[np.bool_], difference: NDArray[np.float64]
) -> pa.Table:
    """Return pairs in the order of their labels, with the label's scores: 0 for the rejected side.

    Args:
        pairs: The pairs that are kept.
        flipped: Whether chosen and rejected change places.
        later: Whether the side that is now chosen is the second one of :class:`Sides`.
        difference: Score of the chosen side less that of the rejected one.
    """
    columns: dict[str, Any] = {name: pairs[name].to_pylist() for name in Pair.SCHEMA.names}
    for name in ("{}", "{}_model"):
        one, other = name.format("chosen"), name.format("rejected")
        both = list(zip(columns[one], columns[other], flipped, strict=True))
        columns[one] = [b if swap else a for a, b, swap in both]
        columns[other] = [a if swap else b for a, b, swap in both]
    # Of imported pairs the samples say which response was chosen: sides are numbered by their texts instead.
    columns |= {"chosen_sample": [int(second) for second in later], "rejected_sample": [int(not s) for s in later]}
    columns |= {"score_chosen": difference, "score_rejected": np.zeros(len(difference)), "delta": difference}
    columns["rule"] = [RULE] * len(difference)
    return pa.table(columns, schema=Pair.SCHEMA)


def _lengths(made: pa.Table, lengths: pa.Table | None, rows: list[int], flipped: NDArray[np.bool_]) -> pa.Table:
    if lengths is None:
        chars = [[len(side[0]["content"]) for side in made[name].to_pylist()] for name in ("chosen", "rejected")]
        return pa.table(
            {"chosen_chars": chars[0], "rejected_chars": chars[1], "chosen_tokens": [None] * made.num_rows}
            | {"rejected_tokens": [None] * made.num_rows},
            schema=LENGTHS,
        )
    taken = lengths.take(pa.array(rows, pa.int64())).to_pylist()
    swapped = [
        {name: row[_other(name)] if swap else row[name] for name in row}
        for row, swap in zip(taken, flipped, strict=True)
    ]
    return pa.Table.from_pylist(swapped, schema=LENGTHS)


def _other(name: str) -> str:
    side, _, what = name.partition("_")
    return f"{'rejected' if side == 'chosen' else 'chosen'}_{what}"


def _dropped(pairs: pa.Table, reasons: dict[int, str]) -> pa.Table:
    ids = pairs["prompt_id"].to_pylist()
    rows = [
        {"prompt_id": ids[row], "unit": "pair", "reason": why, "detail": "", "excerpt": None}
        for row, why in sorted(reasons.items())
    ]
    return pa.Table.from_pylist(rows, schema=DROPPED)


def without(pairs: pa.Table, own: set[str]) -> tuple[pa.Table, Counter[str]]:
    """Return the pairs that are not among some ids, and how many were left out.

    Args:
        pairs: Rows of :class:`w2s_align.records.Pair`.
        own: Ids of :func:`pair_id`.
    """
    sides = sides_of(pairs)
    left_out = {row for key, row in zip(sides.ids, sides.rows, strict=True) if key in own}
    if not left_out:
        return pairs, Counter()
    kept = pairs.filter(pa.array([row not in left_out for row in range(pairs.num_rows)]))
    return kept, Counter({OWN: len(left_out)})
