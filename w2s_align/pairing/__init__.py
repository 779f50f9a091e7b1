"""Pairing: the module that makes the delta. Rules, filters, controls and audits of preference pairs.

    from w2s_align.pairing import model_order
    pairs = model_order(weak, weaker, prompts)       # Arrow tables in, Pairs(table, dropped, counts) out
    pairs.table                                      # Pair rows, in the order of the prompts
    pairs.counts, pairs.dropped                      # nothing is lost in silence
    print(pairs.audit())                             # delta, lengths, warnings in words

Rules that compare scores read ``responses`` of all models and their ``scores``; with scores of several scorers,
``scorer`` says which one to use. All rules take the same :class:`Options`.

Light to import: polars and huggingface_hub are loaded inside the functions that use them.
"""

from w2s_align.pairing.assemble import Options, Pairs
from w2s_align.pairing.audit import Audit, audit
from w2s_align.pairing.controls import CONTROLS, Control, reverse
from w2s_align.pairing.counts import Counts
from w2s_align.pairing.decontaminate import Leaks, find_leaks
from w2s_align.pairing.duplicates import near_duplicates
from w2s_align.pairing.rule import Rule, ScoreRule
from w2s_align.pairing.rules import RULES
from w2s_align.pairing.rules.best_random import best_random
from w2s_align.pairing.rules.best_worst import best_worst
from w2s_align.pairing.rules.confirmed import confirmed
from w2s_align.pairing.rules.correctness import correctness
from w2s_align.pairing.rules.judge import judge
from w2s_align.pairing.rules.max_delta import max_delta
from w2s_align.pairing.rules.model_order import model_order
from w2s_align.pairing.rules.posterior import posterior
from w2s_align.pairing.rules.ranked_scores import Level, ranked_scores
from w2s_align.pairing.rules.score_gap import score_gap
from w2s_align.pairing.rules.self_confidence import self_confidence
from w2s_align.pairing.rules.self_over_weaker import self_over_weaker
from w2s_align.pairing.rules.worst_of_weak import worst_of_weak
from w2s_align.pairing.settings import Filters

__all__ = [
    "CONTROLS",
    "RULES",
    "Audit",
    "Control",
    "Counts",
    "Filters",
    "Leaks",
    "Level",
    "Options",
    "Pairs",
    "Rule",
    "ScoreRule",
    "audit",
    "best_random",
    "best_worst",
    "confirmed",
    "correctness",
    "find_leaks",
    "judge",
    "max_delta",
    "model_order",
    "near_duplicates",
    "posterior",
    "ranked_scores",
    "reverse",
    "score_gap",
    "self_confidence",
    "self_over_weaker",
    "worst_of_weak",
]
