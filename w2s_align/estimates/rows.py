"""Rows of the artifacts that are neither generated nor trained, before they are made.

Reads nothing: what datasets hold is known here, what steps make of it follows from the steps before them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from w2s_align.estimates.costs import StepEstimate
from w2s_align.evaluation.task import dataset_rows
from w2s_align.steps.task import TaskStep

DATASET_ROWS = {
    ("allenai/real-toxicity-prompts", "train"): 99_442,
    ("Anthropic/hh-rlhf harmless-base", "train"): 42_537,
    ("Anthropic/hh-rlhf harmless-base", "test"): 2_312,
    ("Anthropic/hh-rlhf helpful-base", "train"): 43_835,
    ("Anthropic/hh-rlhf helpful-base", "test"): 2_354,
    ("allenai/llama-3.1-tulu-3-8b-preference-mixture", "train"): 271_409,
    ("allenai/llama-3.1-tulu-3-70b-preference-mixture", "train"): 334_302,
    ("allenai/Dolci-Think-DPO-7B", "train"): 150_000,
    ("allenai/Dolci-Think-DPO-32B", "train"): 200_000,
    ("allenai/Dolci-Instruct-DPO", "train"): 259_922,
}
"""Rows of the preference datasets that shipped recipes name, by split, as their cards or papers say. Those of
benchmarks stand in the files of their tasks."""


def estimate_rows(config: Any, sources: Callable[[str], Sequence[StepEstimate]]) -> StepEstimate:
    """Return the rows of an artifact, and whether they are certain; else they are an upper limit.

    Args:
        config: Its step.
        sources: Gives the estimates of what it reads at a place.
    """
    rows, exact = _rows(config, sources)
    return StepEstimate(rows, exact and rows is not None)


def _rows(config: Any, sources: Callable[[str], Sequence[StepEstimate]]) -> tuple[int | None, bool]:
    limit = getattr(config, "limit", None)
    if config.kind in ("half", "half_pairs"):
        whole = sources("items" if config.kind == "half" else "pairs")[0]
        share = config.share if config.half == "first" else 1 - config.share
        return (None if whole.rows is None else round(share * whole.rows)), False
    if config.kind == "pick":
        return (config.number, True) if config.number is not None else (sources("items")[0].rows, False)
    if config.kind in ("label", "shuffle_errors"):
        return sources("items")[0].rows, False
    if config.kind == "gold_answers":
        return sources("prompts")[0].rows, False
    if config.kind == "score_pairs":
        pairs = sources("pairs")[0].rows
        return (None if pairs is None else 2 * pairs), False
    if config.kind == "items":
        form = config.definition()
        rows = form.data.rows.get(config.split or form.data.split)
        known = None if rows is None else form.items_of(rows)
        return (known if limit is None else min(limit, known or limit)), False
    if config.writes == "prompts":
        if isinstance(config, TaskStep):
            return config.definition().expected_problems, False
        known = _known(config)
        return (known if limit is None else min(limit, known or limit)), config.source.startswith("lab/")
    if config.kind == "import_chats":
        return limit, False
    if config.kind == "import_pairs":
        known = _known(config)
        return (known if limit is None else min(limit, known or limit)), False
    if config.kind == "join":
        found = [e.rows for e in sources("pairs") if e.rows is not None]
        return (sum(config.counts or found) if found or config.counts else None), False
    if config.writes == "pairs":
        sides = [e.rows for place in ("chosen", "responses", "pairs", "weak") for e in sources(place)]
        return next((rows for rows in sides if rows is not None), None), False
    if config.kind == "combine":  # several scorers of the same responses
        return max((e.rows for e in sources("scores") if e.rows is not None), default=None), False
    if config.writes in ("scores", "responses"):
        places = ("responses", "scores") if config.writes == "scores" else ("responses", "other")
        read = [e for place in places for e in sources(place)]
        found = [e.rows for e in read if e.rows is not None]
        return (sum(found) if found else None), config.kind == "score" and all(e.exact for e in read)
    return None, False


def _known(config: Any) -> int | None:
    """Return the rows of the dataset that a step reads, where they are known."""
    rows = dataset_rows(config.source, getattr(config, "config", None), config.split)
    folder = getattr(config, "data_dir", None)
    name = f"{config.source} {folder}" if folder else config.source
    return DATASET_ROWS.get((name, config.split)) if rows is None or folder else rows
