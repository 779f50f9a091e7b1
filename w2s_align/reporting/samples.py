"""Real samples for the page: collect them from tables, choose which fit, embed them as inert JSON.

Reads Prompt, Response and Score tables; model output is untrusted and leaves this file only as escaped JSON.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from w2s_align.reporting.data import Answer, Sample

if TYPE_CHECKING:
    import pyarrow as pa

BUDGET_BYTES = 1_800_000
"""Room for samples: a page of 3 MB minus plots and style."""
TEXT_LIMIT = 4_000
"""Longest text of one answer or prompt on the page, in characters; what is cut says so."""


def collect_samples(
    problems: pa.Table,
    arms: Mapping[str, tuple[pa.Table, pa.Table]],
    *,
    baseline: str,
    treatment: str,
    limit: int = 2_000,
) -> tuple[list[Sample], int]:
    """Choose problems and put every arm's first answer (sample 0) side by side.

    Args:
        problems: Table of ``Prompt.SCHEMA``.
        arms: Name to (responses, scores) of one run and one setting, in the order in which they are shown.
        baseline: The untouched student, for telling fixed from broken.
        treatment: The tuned student.
        limit: Most problems to return.

    Returns:
        The samples, evenly from fixed, broken, both wrong and both right as far as there are any, in the order of the
        problems; and the number of problems there were.
    """
    import pyarrow.compute as pc

    values = {name: _first(scores, ("prompt_id", "value", "detail")) for name, (_, scores) in arms.items()}
    ids = problems.column("id").to_pylist()
    classes = [
        outcome(values[baseline].get(i, {}).get("value"), values[treatment].get(i, {}).get("value")) for i in ids
    ]
    picked = _by_turns(classes, limit)
    wanted = problems.take(picked)
    keep = wanted.column("id")
    texts = {
        name: _first(
            responses.filter(pc.is_in(responses.column("prompt_id"), value_set=keep.combine_chunks())),
            ("prompt_id", "text", "reasoning", "finish_reason", "completion_tokens"),
        )
        for name, (responses, _) in arms.items()
    }
    samples = [
        Sample(
            prompt_id=row["id"],
            prompt=_as_text(row["messages"]),
            gold=row["answer"],
            answers=[_answer(name, texts[name].get(row["id"]), values[name].get(row["id"])) for name in arms],
        )
        for row in wanted.select(["id", "messages", "answer"]).to_pylist()
    ]
    return samples, len(ids)


def outcome(before: float | None, after: float | None) -> str:
    """Return ``fixed``, ``broken``, ``both wrong``, ``both right``, or ``unclear`` (unscored, or a score between)."""
    if before not in (0.0, 1.0) or after not in (0.0, 1.0):
        return "unclear"
    return {(0.0, 1.0): "fixed", (1.0, 0.0): "broken", (0.0, 0.0): "both wrong"}.get((before, after), "both right")


def embed(samples: Sequence[Sample], baseline: str, treatments: Sequence[str], unit: str) -> tuple[str, int]:
    """Return the samples as JSON that is safe inside a ``<script>`` element, and how many fitted.

    ``<``, ``>`` and ``&`` are written as escapes, so that no text can end the element or start another.
    """
    rows: list[dict[str, Any]] = []
    used = 0
    for sample in samples:
        row = {
            "id": sample.prompt_id,
            "q": _cut(sample.prompt),
            "gold": sample.gold,
            "a": [
                [a.arm, _cut(a.text), a.value, _cut(a.detail, 300), a.finish_reason, a.tokens] for a in sample.answers
            ],
        }
        used += len(json.dumps(row, ensure_ascii=False).encode("utf-8", "replace"))
        if used > BUDGET_BYTES:
            break
        rows.append(row)
    data = {"baseline": baseline, "treatments": list(treatments), "unit": unit, "rows": rows}
    return inert_json(data), len(rows)


def inert_json(data: Any) -> str:
    """Return JSON without any character that means something to an HTML parser."""
    text = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for character in "<>&\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "replace").decode("utf-8")


def _by_turns(classes: Sequence[str], limit: int) -> list[int]:
    """Take turns over the classes until ``limit`` are picked; return positions in order."""
    if len(classes) <= limit:
        return list(range(len(classes)))
    queues = [[i for i, c in enumerate(classes) if c == name] for name in sorted(set(classes))]
    picked: list[int] = []
    for turn in range(max(map(len, queues))):
        for queue in queues:
            if turn < len(queue) and len(picked) < limit:
                picked.append(queue[turn])
    return sorted(picked)


def _first(table: pa.Table, columns: tuple[str, ...]) -> dict[str, dict[str, Any]]:
    import pyarrow.compute as pc

    first = table.filter(pc.equal(table.column("sample"), 0)).select(list(columns))
    return {row["prompt_id"]: row for row in first.to_pylist()}


def _answer(arm: str, response: dict[str, Any] | None, score: dict[str, Any] | None) -> Answer:
    response, score = response or {}, score or {}
    text, reasoning = response.get("text"), response.get("reasoning")
    if reasoning:
        text = f"[reasoning]\n{reasoning}\n[answer]\n{text or ''}"
    return Answer(
        arm=arm,
        text=text,
        value=score.get("value"),
        detail=score.get("detail") or "",
        finish_reason=response.get("finish_reason") or "error",
        tokens=response.get("completion_tokens"),
    )


def _as_text(messages: Sequence[dict[str, str]]) -> str:
    if len(messages) == 1:
        return messages[0]["content"]
    return "\n\n".join(f"{message['role']}: {message['content']}" for message in messages)


def _cut(text: str | None, limit: int = TEXT_LIMIT) -> str | None:
    if text is None or len(text) <= limit:
        return text
    return f"{text[:limit]}\n[{len(text) - limit:,} more characters are not on this page]"
