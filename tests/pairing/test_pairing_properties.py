"""What holds for every pair rule and every table: order does not matter, controls are controls, gold is not read."""

import math
from functools import partial

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from w2s_align import pairing
from w2s_align.errors import UserError
from w2s_align.pairing import RULES, Filters, Level, reverse
from w2s_align.records import Prompt, Response, Score, to_table
from w2s_align.scoring import VERDICTS

MODELS = ("big", "mid", "small")
IDS = [Prompt.of(f"question {i}").id for i in range(3)]
PROMPTS = to_table([Prompt.of(f"question {i}", answer=str(i), task="t") for i in range(3)])
VALUES = (0.0, 0.5, 1.0, 1.0, 2.0, 2.0, None, math.nan)
TEXTS = ("x #### 1", "y #### 1", "w: 1", "z #### 2", "no idea", "", "X  #### 1")
SIDES = ("chosen", "rejected")
LOOSE = Filters(identical=False)
LEVELS = [Level(scorer="s", margin=0.5), Level(scorer="t", lower_is_better=True)]

rows = st.lists(
    st.tuples(
        st.sampled_from(IDS),
        st.sampled_from(MODELS),
        st.integers(0, 2),
        st.sampled_from(TEXTS),
        st.sampled_from(VALUES),
        st.sampled_from(VALUES),
        st.sampled_from(("stop", "stop", "stop", "length")),
    ),
    min_size=12,
    max_size=22,
    unique_by=lambda row: row[:3],
)
"""Prompt, model, sample, text, value of the scorer s, value of the scorer t, finish reason."""


def responses(table):
    return to_table([Response(p, s, m, text, finish_reason=f) for p, m, s, text, _, _, f in table], Response)


def scores(table, names=("s",)):
    columns = {"s": 4, "t": 5}
    return to_table([Score(row[0], row[2], row[1], n, row[columns[n]]) for n in names for row in table], Score)


def verdicts(table):
    """Every two responses of a prompt were compared; the verdicts follow from their values in one way or another."""
    made = []
    ordered = sorted(table, key=lambda row: row[:3])
    for i, left in enumerate(ordered):
        for right in ordered[i + 1 :]:
            if left[0] != right[0]:
                continue
            for shown, a, b in (("first", left[4], right[4]), ("second", left[5], right[5])):
                known = all(value is not None and not math.isnan(value) for value in (a, b))
                value = (a > b) + 0.5 * (a == b) if known else None
                made.append((*left[:3], right[1], right[2], shown, "", 0, "", value, None))
    columns = [list(column) for column in zip(*made, strict=True)] or [[] for _ in VERDICTS]
    return pa.table(columns, schema=VERDICTS)


def by_source(rule, table, prompts, **options):
    sides = [[row for row in table if (row[1] == "big") is side] for side in (True, False)]
    return rule(responses(sides[0]), responses(sides[1]), prompts, **options)


def by_source_and_score(table, prompts, **options):
    """The tied control matches scores, so that it is checked like the rules that compare them."""
    sides = [[row for row in table if (row[1] == "big") is side] for side in (True, False)]
    return pairing.confirmed(responses(sides[0]), responses(sides[1]), scores(table, ("s",)), prompts, **options)


def by_score(rule, table, prompts, *, names=("s",), **options):
    return rule(responses(table), scores(table, names), prompts, **options)


def by_probability(table, prompts, **options):
    """The values are spread over 0 to 1, as a label model's are."""
    return by_score(
        pairing.posterior, [(*row[:4], row[4] and row[4] / 2, *row[5:]) for row in table], prompts, **options
    )


def by_verdict(table, prompts, **options):
    return pairing.judge(responses(table), verdicts(table), prompts, **options)


HOW = {
    "model_order": partial(by_source, pairing.model_order),
    "self_over_weaker": partial(by_source, pairing.self_over_weaker),
    "confirmed": partial(by_source_and_score, margin=0.5),
    "self_confidence": partial(by_source, pairing.self_confidence, keep_at=0.4, reject_at=0.5),
    "score_gap": partial(by_score, pairing.score_gap, margin=0.5, pick="random"),
    "correctness": partial(by_score, pairing.correctness),
    "best_worst": partial(by_score, pairing.best_worst),
    "best_random": partial(by_score, pairing.best_random),
    "worst_of_weak": partial(by_score, pairing.worst_of_weak, weak_models=["small", "mid"]),
    "max_delta": partial(by_score, pairing.max_delta),
    "ranked_scores": partial(by_score, pairing.ranked_scores, levels=LEVELS, names=("s", "t")),
    "posterior": partial(by_probability, margin=0.25),
    "judge": partial(by_verdict),
}


def outcome(make_pairs):
    """Return pairs and counts, or the words of the refusal."""
    try:
        pairs = make_pairs()
    except UserError as error:
        return str(error)
    return pairs


def test_every_rule_is_here():
    assert set(HOW) == set(RULES)


@pytest.mark.parametrize("name", HOW)
@settings(
    max_examples=10,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],  # a failing table is small enough as it is
    suppress_health_check=list(HealthCheck),
)
@given(table=rows, order=st.randoms(use_true_random=False), seed=st.integers(0, 3))
def test_every_rule(name, table, order, seed):
    rule = partial(HOW[name], filters=LOOSE, seed=seed)
    plain = outcome(lambda: rule(table, PROMPTS, pairs_per_prompt=2))
    shuffled = order.sample(table, len(table))
    again = outcome(lambda: rule(shuffled, PROMPTS, pairs_per_prompt=2))
    if isinstance(plain, str):
        assert again == plain
        return
    # The order of the candidates does not matter.
    assert again.table.equals(plain.table) and again.counts == plain.counts
    # Gold is not read: the same table without it.
    no_gold = PROMPTS.set_column(2, PROMPTS.schema.field("answer"), pa.nulls(3, pa.string()))
    assert rule(table, no_gold, pairs_per_prompt=2).table.equals(plain.table)
    # Reversed twice is the identity, by hand and by the switch.
    assert reverse(reverse(plain.table)).equals(plain.table)
    assert reverse(rule(table, PROMPTS, pairs_per_prompt=2, control="reversed").table).equals(plain.table)
    # Shuffled: the same pairs, some of them the other way round.
    swapped = rule(table, PROMPTS, pairs_per_prompt=2, control="shuffled")
    assert [sides(row) for row in swapped.table.to_pylist()] == [sides(row) for row in plain.table.to_pylist()]
    # Tied: two responses of the same quality, or a refusal.
    tied = outcome(lambda: rule(table, PROMPTS, pairs_per_prompt=2, control="tied"))
    if not isinstance(tied, str):
        values = {row[:3]: row[4:6] for row in table}
        for row in tied.table.to_pylist():
            chosen, rejected = (values[row["prompt_id"], row[f"{s}_model"], row[f"{s}_sample"]] for s in SIDES)
            if HOW[name].func is by_score:
                used = 2 if name == "ranked_scores" else 1
                assert same(chosen[:used], rejected[:used])
        assert all(text(row, "chosen") != text(row, "rejected") for row in tied.table.to_pylist())
    # At most so many pairs per prompt, and one pair is the first of two.
    one = rule(table, PROMPTS, pairs_per_prompt=1).table.to_pylist()
    two = plain.table.to_pylist()
    firsts = {row["prompt_id"]: row for row in reversed(two)}
    assert one == [firsts[prompt] for prompt in dict.fromkeys(row["prompt_id"] for row in two)]
    assert all(sum(row["prompt_id"] == prompt for row in two) <= 2 for prompt in IDS)
    # Nothing is lost in silence.
    check_sums(plain.counts)
    # Nobody is better than himself, and higher scores are chosen (max_delta goes by models).
    for row in two:
        assert (row["chosen_model"], row["chosen_sample"]) != (row["rejected_model"], row["rejected_sample"])
        if row["delta"] is not None and name not in ("max_delta", "self_confidence"):
            assert row["delta"] > 0


def sides(row):
    return row["prompt_id"], frozenset((row[f"{s}_model"], row[f"{s}_sample"]) for s in SIDES)


def same(left, right):
    """Equal, where a score that is not finite is none at all."""
    known = [[None if value is None or math.isnan(value) else value for value in side] for side in (left, right)]
    return known[0] == known[1]


def text(row, side):
    return " ".join(row[side][0]["content"].lower().split())


def check_sums(counts):
    for unit in ("prompt", "response", "pair"):
        assert counts.given[unit] == counts.kept[unit] + counts.lost(unit)
