"""The pair rules, one file each. A new rule is a file beside these and a line here."""

from w2s_align.pairing.rule import Rule
from w2s_align.pairing.rules.best_random import BestRandom
from w2s_align.pairing.rules.best_worst import BestWorst
from w2s_align.pairing.rules.confirmed import Confirmed
from w2s_align.pairing.rules.correctness import Correctness
from w2s_align.pairing.rules.judge import Judge
from w2s_align.pairing.rules.max_delta import MaxDelta
from w2s_align.pairing.rules.model_order import ModelOrder
from w2s_align.pairing.rules.posterior import Posterior
from w2s_align.pairing.rules.ranked_scores import RankedScores
from w2s_align.pairing.rules.score_gap import ScoreGap
from w2s_align.pairing.rules.self_confidence import SelfConfidence
from w2s_align.pairing.rules.self_over_weaker import SelfOverWeaker
from w2s_align.pairing.rules.worst_of_weak import WorstOfWeak

RULES: dict[str, type[Rule]] = {
    rule.name: rule
    for rule in (
        ModelOrder,
        SelfOverWeaker,
        Confirmed,
        ScoreGap,
        Correctness,
        BestWorst,
        BestRandom,
        WorstOfWeak,
        MaxDelta,
        RankedScores,
        Posterior,
        Judge,
        SelfConfidence,
    )
}
"""All pair rules by name, in the order in which the catalogue shows them."""
