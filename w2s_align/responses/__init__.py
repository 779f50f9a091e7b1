"""From responses to other responses: those to train on by supervised fine-tuning, and those cut to some sentences."""

from w2s_align.responses.cut import cut_to_sentences
from w2s_align.responses.degenerate import Degenerate, degenerate_reasons
from w2s_align.responses.narrow import narrowed, precision_and_recall, without_reasons
from w2s_align.responses.select import (
    Selected,
    select_agreeing,
    select_all,
    select_confident,
    select_correct,
    select_incorrect,
    select_mixed,
)

__all__ = [
    "Degenerate",
    "Selected",
    "cut_to_sentences",
    "degenerate_reasons",
    "narrowed",
    "precision_and_recall",
    "select_agreeing",
    "select_all",
    "select_confident",
    "select_correct",
    "select_incorrect",
    "select_mixed",
    "without_reasons",
]
