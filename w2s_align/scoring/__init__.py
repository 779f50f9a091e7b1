"""Scoring: every response gets a value, or null and the reason why it has none.

    from w2s_align.scoring import score
    scores = score(prompts, responses, "math")      # Arrow tables in, Scores(table, scored, unscored, mean) out

Answer checks, generated code against tests, verifiable instructions, countable features, self-consistency, reward
models and log-probabilities: all are functions of one shape (``verdicts.py``), listed in ``scorers.py``, with options
in ``settings.py``. Light to import: libraries and models are loaded when their scorer is opened.
"""

from w2s_align.scoring.answers import extract_answer
from w2s_align.scoring.scorers import SCORERS, choose_scorer
from w2s_align.scoring.settings import ScorerSettings
from w2s_align.scoring.table import Scores, score, scorer_settings, summarise
from w2s_align.scoring.verdicts import Verdicts

__all__ = [
    "SCORERS",
    "ScorerSettings",
    "Scores",
    "Verdicts",
    "choose_scorer",
    "extract_answer",
    "score",
    "scorer_settings",
    "summarise",
]
