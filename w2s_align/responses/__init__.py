"""From responses to other responses: those to train on by supervised fine-tuning, and those cut to some sentences."""

from w2s_align.responses.cut import cut_to_sentences
from w2s_align.responses.select import (
    Selected,
    select_agreeing,
    select_confident,
    select_correct,
    select_incorrect,
)

__all__ = [
    "Selected",
    "cut_to_sentences",
    "select_agreeing",
    "select_confident",
    "select_correct",
    "select_incorrect",
]
