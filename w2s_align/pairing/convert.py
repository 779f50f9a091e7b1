"""Preference data of other tools in, other formats out.

Reads the common layouts of preference data into Pair tables (:func:`read_pairs`), and turns Pair tables into TRL's
unpaired (KTO) and supervised (SFT) formats. Every row that cannot be read is counted with its reason and never passed
on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.records import MESSAGES, Message, Pair, prompt_id, to_table

Layout: TypeAlias = Literal["explicit", "implicit", "ultrafeedback", "sharegpt", "argilla"]

_ROLES = {"human": "user", "gpt": "assistant", "user": "user", "assistant": "assistant", "system": "system"}


@dataclass(frozen=True)
class ImportedPairs:
    """Pairs that were read.

    Attributes:
        table: Rows of :class:`w2s_align.records.Pair`.
        dropped: Rows that could not be read: ``row`` (its number in the input), ``reason``.
        counts: ``rows`` = ``rows used`` + all ``dropped: <reason>``; and the number of ``pairs``.
    """

    table: pa.Table
    dropped: pa.Table
    counts: dict[str, int]


def read_pairs(
    rows: Iterable[Mapping[str, Any]], layout: Layout | None = None, *, rule: str = "imported"
) -> ImportedPairs:
    """Read preference pairs of another tool.

    The layouts:

    - ``explicit``: ``prompt``, ``chosen``, ``rejected`` as messages or strings (TRL).
    - ``implicit``: ``chosen`` and ``rejected`` are whole chats (TRL without a prompt). The prompt is what they share
      up to the last turn; chats that differ earlier are not pairs of answers to one prompt.
    - ``ultrafeedback``: whole chats, with ``prompt`` and ``score_chosen``, ``score_rejected``
        (UltraFeedback-binarized).
    - ``sharegpt``: ``conversations`` of ``{from, value}``, and ``chosen``, ``rejected`` as one such turn each.
    - ``argilla``: ``instruction``, and either ``chosen_response``, ``rejected_response`` with ratings, or
      ``generations`` with ``ratings`` (distilabel; best against worst).

    Args:
        rows: The rows, as dictionaries; a ``datasets.Dataset`` is one such thing.
        layout: How they are laid out; None to tell it from the columns of the first row.
        rule: What ``Pair.rule`` says.

    Raises:
        UserError: The layout cannot be told from the columns.
    """
    pairs: list[Pair] = []
    lost: list[tuple[int, str]] = []
    number = -1
    for number, row in enumerate(rows):
        layout = layout or layout_of(row)
        try:
            pairs.append(_pair(_READERS[layout](row), row, rule))
        except _UnreadableError as error:
            lost.append((number, str(error)))
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            lost.append((number, f"not of the layout {layout}: {type(error).__name__}"))
    return _imported(pairs, lost, number + 1, len(pairs))


def layout_of(row: Mapping[str, Any]) -> Layout:
    """Tell the layout from the columns of a row.

    Raises:
        UserError: No known layout has these columns.
    """
    columns = set(row)
    layouts: list[tuple[set[str], Layout]] = [
        ({"conversations", "chosen", "rejected"}, "sharegpt"),
        ({"instruction", "chosen_response", "rejected_response"}, "argilla"),
        ({"instruction", "generations", "ratings"}, "argilla"),
        ({"score_chosen", "score_rejected", "prompt_id", "messages"}, "ultrafeedback"),
        ({"prompt", "chosen", "rejected"}, "explicit"),
        ({"chosen", "rejected"}, "implicit"),
    ]
    for needed, layout in layouts:
        if needed <= columns:
            if layout == "explicit" and isinstance(row["prompt"], str) and not isinstance(row["chosen"], str):
                return "ultrafeedback"
            return layout
    raise UserError(
        f"No layout of preference data has the columns {', '.join(sorted(columns))}.",
        fix="Rename the columns to prompt, chosen, rejected, or say which layout it is.",
    )


class _UnreadableError(Exception):
    """Why a row is no pair."""


_Parts: TypeAlias = tuple[list[Message], Message, Message, float | None, float | None]


def _pair(parts: _Parts, row: Mapping[str, Any], rule: str) -> Pair:
    prompt, chosen, rejected, score_chosen, score_rejected = parts
    if not prompt or prompt[-1]["role"] != "user":
        raise _UnreadableError("the prompt does not end with a user turn")
    for turn in (chosen, rejected):
        if turn["role"] != "assistant":
            raise _UnreadableError("the last turn is not the assistant's")
        if not turn["content"].strip():
            raise _UnreadableError("empty response")
    if chosen["content"] == rejected["content"]:
        raise _UnreadableError("identical responses")
    delta = None if score_chosen is None or score_rejected is None else score_chosen - score_rejected
    return Pair(
        prompt=prompt,
        chosen=[chosen],
        rejected=[rejected],
        prompt_id=prompt_id(prompt),
        chosen_model=str(row.get("chosen_model") or row.get("chosen-model") or "unknown"),
        rejected_model=str(row.get("rejected_model") or row.get("rejected-model") or "unknown"),
        chosen_sample=0,
        rejected_sample=1,
        score_chosen=score_chosen,
        score_rejected=score_rejected,
        delta=delta,
        rule=rule,
    )


def _turn(turn: Mapping[str, Any]) -> Message:
    """Read one turn, in either spelling, as exactly role and content."""
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    if role not in _ROLES or not isinstance(content, str):
        raise _UnreadableError("a turn without a known role and a text")
    return {"role": _ROLES[role], "content": content}


def _chat(value: Any, role: str) -> list[Message]:
    """Read a string (one turn of ``role``), one turn or a list of turns."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    return [_turn(turn) for turn in ([value] if isinstance(value, Mapping) else value)]


def _score(value: Any) -> float | None:
    if value is None:
        return None
    number = float(value)
    return number if np.isfinite(number) else None


def _explicit(row: Mapping[str, Any]) -> _Parts:
    chosen, rejected = _chat(row["chosen"], "assistant"), _chat(row["rejected"], "assistant")
    if len(chosen) != 1 or len(rejected) != 1:
        raise _UnreadableError("a response of several turns")
    scores = _score(row.get("score_chosen")), _score(row.get("score_rejected"))
    return _chat(row["prompt"], "user"), chosen[0], rejected[0], *scores


def _implicit(row: Mapping[str, Any]) -> _Parts:
    if isinstance(row["chosen"], str):
        # Where one prompt ends and the answers begin cannot be told from two strings
        # (https://github.com/huggingface/trl/pull/6472 and others): a guess cuts words in two.
        raise _UnreadableError("two strings without a prompt")
    chosen, rejected = _chat(row["chosen"], "assistant"), _chat(row["rejected"], "assistant")
    if len(chosen) < 2 or chosen[:-1] != rejected[:-1]:
        raise _UnreadableError("the chats differ before the last turn")
    return chosen[:-1], chosen[-1], rejected[-1], _score(row.get("score_chosen")), _score(row.get("score_rejected"))


def _sharegpt(row: Mapping[str, Any]) -> _Parts:
    chosen, rejected = _chat(row["chosen"], "assistant"), _chat(row["rejected"], "assistant")
    return [_turn(turn) for turn in row["conversations"]], chosen[-1], rejected[-1], None, None


def _argilla(row: Mapping[str, Any]) -> _Parts:
    system = [{"role": "system", "content": row["system_prompt"]}] if row.get("system_prompt") else []
    prompt = [*system, *_chat(row["instruction"], "user")]
    if row.get("chosen_response") is not None:
        chosen, rejected = row["chosen_response"], row["rejected_response"]
        scores = _score(row.get("chosen_rating")), _score(row.get("rejected_rating"))
    else:
        rated = [(_score(r), g) for r, g in zip(row["ratings"], row["generations"], strict=True)]
        known = [(rating, text) for rating, text in rated if rating is not None and text]
        if len(known) < 2:
            raise _UnreadableError("fewer than two rated responses")
        best, worst = max(known, key=lambda pair: pair[0]), min(known, key=lambda pair: pair[0])
        if best[0] == worst[0]:
            raise _UnreadableError("all ratings equal")
        (high, chosen), (low, rejected) = best, worst
        scores = high, low
    return prompt, _chat(chosen, "assistant")[-1], _chat(rejected, "assistant")[-1], *scores


_READERS: dict[str, Callable[[Mapping[str, Any]], _Parts]] = {
    "explicit": _explicit,
    "implicit": _implicit,
    "ultrafeedback": _implicit,
    "sharegpt": _sharegpt,
    "argilla": _argilla,
}


def read_unpaired(rows: Iterable[Mapping[str, Any]], *, rule: str = "imported") -> ImportedPairs:
    """Read TRL's unpaired (KTO) format and pair every good completion of a prompt with a bad one of the same prompt.

    Args:
        rows: ``prompt``, ``completion`` (messages or strings) and ``label`` (true is good).
        rule: What ``Pair.rule`` says.
    """
    sides: dict[str, tuple[list[Message], list[tuple[int, Any]], list[tuple[int, Any]]]] = {}
    lost: list[tuple[int, str]] = []
    total = 0
    for number, row in enumerate(rows):
        total += 1
        try:
            prompt, completion = _chat(row["prompt"], "user"), _chat(row["completion"], "assistant")
            if len(completion) != 1 or not isinstance(row["label"], bool | np.bool_):
                raise _UnreadableError("not one completion with a label")
        except _UnreadableError as error:
            lost.append((number, str(error)))
            continue
        except (KeyError, TypeError, AttributeError) as error:
            lost.append((number, f"not of the unpaired layout: {type(error).__name__}"))
            continue
        _, good, bad = sides.setdefault(prompt_id(prompt), (prompt, [], []))
        (good if row["label"] else bad).append((number, completion))
    pairs: list[Pair] = []
    for prompt, good, bad in sides.values():
        paired = min(len(good), len(bad))
        for (first, chosen), (second, rejected) in zip(good[:paired], bad[:paired], strict=True):
            try:
                pairs.append(_pair((prompt, chosen[0], rejected[0], None, None), {}, rule))
            except _UnreadableError as error:
                lost += [(first, str(error)), (second, str(error))]
        lost += [(number, "no completion with the other label") for number, _ in [*good[paired:], *bad[paired:]]]
    return _imported(pairs, sorted(lost), total, 2 * len(pairs))


def _imported(pairs: list[Pair], lost: list[tuple[int, str]], rows: int, used: int) -> ImportedPairs:
    columns = {
        "row": pa.array([n for n, _ in lost], pa.int64()),
        "reason": pa.array([r for _, r in lost], pa.string()),
    }
    reasons = sorted(Counter(reason for _, reason in lost).items())
    counts = {"rows": rows, "rows used": used, "pairs": len(pairs), **{f"dropped: {r}": n for r, n in reasons}}
    return ImportedPairs(to_table(pairs, Pair), pa.table(columns), counts)


UNPAIRED = pa.schema([("prompt", MESSAGES), ("completion", MESSAGES), ("label", pa.bool_())])
SFT = pa.schema([("messages", MESSAGES)])


def to_unpaired(pairs: pa.Table) -> pa.Table:
    """Turn pairs into TRL's unpaired (KTO) format: ``prompt``, ``completion``, ``label``; the chosen sides come
    first."""
    n = pairs.num_rows
    parts = [
        pa.table(
            {"prompt": pairs["prompt"], "completion": pairs[side], "label": pa.array(np.full(n, side == "chosen"))}
        )
        for side in ("chosen", "rejected")
    ]
    return pa.concat_tables(parts).cast(UNPAIRED)


def to_sft(pairs: pa.Table, side: Literal["chosen", "rejected"] = "chosen") -> pa.Table:
    """Turn one side of pairs into TRL's conversational SFT format: ``messages``, the prompt and the response in one
    chat."""
    import polars as pl

    chats = [pl.Series(name, pl.from_arrow(pairs[name])) for name in ("prompt", side)]
    messages = pl.DataFrame(chats).select(messages=pl.concat_list("prompt", side))
    return messages.to_arrow().cast(SFT)
