"""Scoring: every response gets a value, or null and the reason why it has none.

    from w2s_align.scoring import score
    scores = score(prompts, responses, "math")      # Arrow tables in, Scores(table, scored, unscored, mean) out

Answer checks, generated code against tests, verifiable instructions, countable features, self-consistency, reward
models and log-probabilities: each is one class in ``scorers/``, and ``scorer.py`` says what all have in common. Judges
ask a model through generation (``judge.py``); ``combine`` makes one score of several. Light to import: libraries and
models are loaded when their scorer is opened.
"""

from w2s_align.scoring.answers import extract_answer
from w2s_align.scoring.bradley_terry import Strengths, bradley_terry
from w2s_align.scoring.combine import combine
from w2s_align.scoring.judge import Judged, judge
from w2s_align.scoring.judge_prompts import JudgeSettings
from w2s_align.scoring.judge_scores import VERDICTS, comparisons
from w2s_align.scoring.scorer import Assessment, Outcome, Scorer
from w2s_align.scoring.scorers import SCORERS, ScorerSettings, scorer_settings
from w2s_align.scoring.scorers.auto import choose_scorer
from w2s_align.scoring.table import Scores, score, summarize

__all__ = [
    "SCORERS",
    "VERDICTS",
    "Assessment",
    "JudgeSettings",
    "Judged",
    "Outcome",
    "Scorer",
    "ScorerSettings",
    "Scores",
    "Strengths",
    "bradley_terry",
    "choose_scorer",
    "combine",
    "comparisons",
    "extract_answer",
    "judge",
    "score",
    "scorer_settings",
    "summarize",
]
