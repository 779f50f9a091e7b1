"""Pairing: the module that makes the delta. Rules, filters, controls, audits and the export of preference pairs.

    from w2s_align.pairing import model_order
    pairs = model_order(weak, weaker, prompts)       # Arrow tables in, Pairs(table, dropped, counts) out
    print(pairs.audit())

Light to import: polars and huggingface_hub are loaded inside the functions that use them.
"""

from collections.abc import Callable

from w2s_align.interchange.convert import to_sft, to_unpaired
from w2s_align.interchange.export import CardFacts, export_pairs
from w2s_align.interchange.imports import import_pairs
from w2s_align.pairing.assemble import Pairs
from w2s_align.pairing.audit import Audit, audit
from w2s_align.pairing.controls import CONTROLS, Control, reverse
from w2s_align.pairing.decontaminate import Leaks, decontaminate, find_leaks
from w2s_align.pairing.duplicates import Deduplicated, drop_near_duplicates, near_duplicates
from w2s_align.pairing.pairs import (
    MODEL_AND_SCORE_RULES,
    Options,
    best_random,
    best_worst,
    correctness,
    max_delta,
    model_order,
    ranked_scores,
    score_gap,
    self_over_weaker,
    worst_of_weak,
)
from w2s_align.pairing.rules.judged import judge
from w2s_align.pairing.rules.score_rules import Level
from w2s_align.pairing.rules.self_confidence import self_confidence
from w2s_align.pairing.settings import Filters
from w2s_align.scoring.select import (
    Selected,
    select_agreeing,
    select_confident,
    select_correct,
    select_incorrect,
)

RULES: dict[str, Callable[..., Pairs]] = {**MODEL_AND_SCORE_RULES, "self_confidence": self_confidence, "judge": judge}
"""All pair rules by name."""

__all__ = [
    "CONTROLS",
    "RULES",
    "Audit",
    "CardFacts",
    "Control",
    "Deduplicated",
    "Filters",
    "Leaks",
    "Level",
    "Options",
    "Pairs",
    "Selected",
    "audit",
    "best_random",
    "best_worst",
    "correctness",
    "decontaminate",
    "drop_near_duplicates",
    "export_pairs",
    "find_leaks",
    "import_pairs",
    "judge",
    "max_delta",
    "model_order",
    "near_duplicates",
    "ranked_scores",
    "reverse",
    "score_gap",
    "select_agreeing",
    "select_confident",
    "select_correct",
    "select_incorrect",
    "self_confidence",
    "self_over_weaker",
    "to_sft",
    "to_unpaired",
    "worst_of_weak",
]
