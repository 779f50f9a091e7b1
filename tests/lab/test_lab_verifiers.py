"""Verifiers of known quality: what each option does to how often they are right."""

from __future__ import annotations

import numpy as np
import pytest
from lab_solutions import write_solution

from w2s_align.lab import problems
from w2s_align.lab.verifiers import Verifier
from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring import score

PROBLEMS = problems("lab/addition", 1000, seed=0, split="test")
RIGHT = [write_solution("lab/addition", p.messages[-1]["content"]) for p in PROBLEMS]
ALL = (True, True, True)
WRONG = [text + "1" for text in RIGHT]
"""A last line that no carry explains."""


def rates(**options: float) -> tuple[float, float]:
    """Share of yes to right and of no to wrong answers."""
    verifier = Verifier(**options)
    yes = [
        verifier.judge("lab/addition", PROBLEMS, texts, [f"{which} {i}" for i in range(len(texts))])
        for which, texts in enumerate((RIGHT, WRONG))
    ]
    return float(np.mean(yes[0])), 1 - float(np.mean(yes[1]))


def test_each_option_does_what_it_says() -> None:
    assert rates() == (1.0, 1.0)
    assert rates(lazy=0.3) == (1.0, pytest.approx(0.7, abs=0.05))
    assert rates(noise=0.2) == (pytest.approx(0.8, abs=0.04), pytest.approx(0.8, abs=0.04))
    forgetful = rates(slip=0.5)
    assert 0.3 < forgetful[0] < 0.7 and forgetful[1] > 0.95
    one, many = rates(slip=0.3), rates(slip=0.3, tries=8)
    assert many[0] == pytest.approx(one[0], abs=0.04)


def test_it_is_fooled_by_its_own_mistake_alone() -> None:
    carrying = [p for p in PROBLEMS if p.meta["carries"] == 3][:100]
    forgotten = [write_solution("lab/addition", p.messages[-1]["content"], ALL) for p in carrying]
    places = [str(i) for i in range(len(carrying))]
    assert np.mean(Verifier(slip=1.0).judge("lab/addition", carrying, forgotten, places)) == 1
    assert np.mean(Verifier().judge("lab/addition", carrying, forgotten, places)) == 0


def test_draws_are_the_verifiers_own_and_a_copier_repeats_them() -> None:
    places = [str(i) for i in range(len(RIGHT))]

    def says(**options: float) -> np.ndarray:
        return np.array(Verifier(slip=0.4, **options).judge("lab/addition", PROBLEMS, RIGHT, places))

    first, again, other = says(draws=1), says(draws=1), says(draws=2)
    assert (first == again).all()
    assert np.corrcoef(first, other)[0, 1] < 0.5
    copier = says(draws=3, copies=1, copied=0.8)
    assert 0.85 < (copier == first).mean() < 0.97
    assert (says(draws=4, copies=1, copied=1.0) == first).all()


def test_as_a_scorer_it_has_its_number_in_its_name_and_keeps_the_answer() -> None:
    from w2s_align.scoring import SCORERS

    stranger = Prompt.of("What is 2 + 2?", task="sums")
    prompts = [PROBLEMS[0], stranger]
    responses = [Response(p.id, 0, "m", RIGHT[0]) for p in prompts]
    found = score(to_table(prompts), to_table(responses), SCORERS["lab_verifier"](draws=7))
    rows = found.table.to_pylist()
    assert [row["scorer"] for row in rows] == ["lab_verifier:7"] * 2
    assert (rows[0]["value"], rows[0]["answer"]) == (1.0, PROBLEMS[0].answer)
    assert found.unscored == {"not a problem of the lab": 1}
