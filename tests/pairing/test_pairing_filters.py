"""Every filter by hand: what it drops, what it leaves, and where it is counted."""

import numpy as np
import polars as pl
import pytest

from w2s_align.errors import UserError
from w2s_align.pairing import Filters, best_worst, model_order
from w2s_align.pairing.filters import balancing_cut
from w2s_align.pairing.quality import flag_texts, repeats_itself


def flags(filters, *texts):
    return flag_texts(pl.Series(texts, dtype=pl.String), filters).to_list()


def test_special_tokens():
    leaked = [
        "ok<|im_end|>",
        "<|start_header_id|>user",
        "[INST] hi",
        "<start_of_turn>model",
        "done</s>",
        "<s> go",
        "a <pad>",
    ]
    clean = ["a < b | c > d", "<b>bold</b>", "|x| <|> y", "the </s> tag ends it", None]
    only = Filters()
    assert flags(only, *leaked) == ["special tokens"] * len(leaked)
    assert flags(only, *clean) == [None] * len(clean)
    assert flags(Filters(special_tokens=False), *leaked) == [None] * len(leaked)


def test_refusal():
    refusals = [
        "I'm sorry, but I can't help.",
        "I cannot do that",
        "As an AI model, I",
        "**I’m unable to** say",
        "Sorry, no.",
    ]
    answers = ["Sure! I can't wait to help.", "The sorry state of things", "Assume an air bubble", "I can do that"]
    assert flags(Filters(refusal=True), *refusals) == ["refusal"] * len(refusals)
    assert flags(Filters(refusal=True), *answers) == [None] * len(answers)


def test_script():
    texts = ["plain words 123", "слова", "mostly english with one 字", "123 + 4", "ab 字"]
    assert flags(Filters(script="latin"), *texts) == [None, "wrong script", None, None, "wrong script"]
    assert flags(Filters(script="cyrillic"), "слова", "words") == [None, "wrong script"]


def test_language():
    english = "The answer is that you have to add the two numbers and then write it down."
    german = (
        "Die Antwort ist, dass man die zwei Zahlen addiert und das Ergebnis dann mit der Hand auf das Blatt schreibt."
    )
    french = "La réponse est que vous devez faire les deux sommes et une division pour avoir le total dans la case."
    short, formula = "Das ist es.", "x = 4 + 3 * 2, y = 7, z = 12"
    texts = [english, german, french, short, formula, "", None]
    assert flags(Filters(language="en"), *texts) == [None, "wrong language", "wrong language", None, None, None, None]
    assert flags(Filters(language="de"), *texts) == ["wrong language", None, "wrong language", None, None, None, None]
    assert flags(Filters(language="fr"), *texts) == ["wrong language", "wrong language", None, None, None, None, None]


def test_repetition():
    texts = [
        "Go on. Go on. Go on. Go on. Stop.",
        "Go on. Go on. Go on. Stop. Go on.",
        "line\nline\nline\nline",
        " ".join(f"Yes. No {i}." for i in range(40)),
        " ".join(f"Yes. No {i}." for i in range(39)),
        "\n\n".join(f"same words\n\nother {i}" for i in range(10)),
        "",
        None,
    ]
    assert repeats_itself(pl.Series(texts)).to_list() == [True, False, True, True, False, True, False, False]
    assert flags(Filters(repetition=True), *texts[:2]) == ["repetition", None]


def test_text_filters_on_both_sides_let_the_rule_choose_among_clean_responses(make):
    rows = [("a", "m", 0, "I cannot say", 9.0), ("a", "m", 1, "fine", 5.0), ("a", "m", 2, "bad", 1.0)]
    responses, prompts = make.responses([row[:4] for row in rows]), make.prompts("a")
    scores = make.scores([(p, m, s, value) for p, m, s, _, value in rows])
    both = best_worst(responses, scores, prompts, filters=Filters(refusal=True))
    assert make.short(both) == [("a", "fine", "bad")]
    assert make.dropped(both, "response") == {make.id("a"): "refusal"}
    chosen = best_worst(responses, scores, prompts, filters=Filters(refusal=True, sides="chosen"))
    assert make.short(chosen) == []
    assert make.dropped(chosen, "pair") == make.dropped(chosen, "prompt") == {make.id("a"): "refusal"}
    flipped = make.scores([(p, m, s, -value) for p, m, s, _, value in rows])
    rejected = best_worst(responses, flipped, prompts, filters=Filters(refusal=True, sides="chosen"))
    assert make.short(rejected) == [("a", "bad", "I cannot say")]


def lengths(make, gaps, **options):
    """Pairs with the given length gaps in tokens (chosen minus rejected)."""
    names = [str(i) for i in range(len(gaps))]
    weak = make.responses([(p, "w", 0, f"x{p}", "stop", 500 + gap) for p, gap in zip(names, gaps, strict=True)])
    weaker = make.responses([(p, "v", 0, f"y{p}", "stop", 500) for p in names])
    return model_order(weak, weaker, make.prompts(names), **options)


def test_length_gap(make):
    pairs = lengths(make, [100, 101, -100, -101, 0], filters=Filters(max_length_gap=100))
    assert [question for question, _, _ in make.short(pairs)] == ["0", "2", "4"]
    assert pairs.counts.lost("pair", "length gap") == 2
    weak, weaker = make.responses([("a", "w", 0, "12345")]), make.responses([("a", "v", 0, "1")])
    with pytest.raises(UserError, match="length in tokens of 1 pairs is not known"):
        model_order(weak, weaker, make.prompts("a"), filters=Filters(max_length_gap=1))
    by_chars = Filters(max_length_gap=3, length_unit="chars")
    assert model_order(weak, weaker, make.prompts("a"), filters=by_chars).counts.kept["pair"] == 0
    thought = make.responses([("a", "w", 0, "<think>a long thought</think>1234")])
    assert model_order(thought, weaker, make.prompts("a"), filters=by_chars).counts.kept["pair"] == 1


def test_matched_lengths_leave_no_length_signal(make):
    gaps = [5] * 30 + [-6] * 10 + [64] * 4 + [-100] * 8 + [0] * 3
    plain = lengths(make, gaps)
    assert plain.audit().lengths["tokens"]["longer_wins"] == pytest.approx(34 / 52)
    pairs = lengths(make, gaps, filters=Filters(match_lengths=True))
    assert pairs.counts.kept["pair"] == 10 + 10 + 4 + 4 + 3
    assert pairs.counts.lost("pair", "length match") == pairs.counts.lost("prompt", "length match") == 24
    assert pairs.audit().lengths["tokens"]["longer_wins"] == 0.5
    again = lengths(make, gaps, filters=Filters(match_lengths=True), seed=0)
    assert again.table.equals(pairs.table)
    assert not lengths(make, gaps, filters=Filters(match_lengths=True), seed=1).table.equals(pairs.table)


def test_the_cut_that_balances_lengths_is_that_of_the_simulation():
    """20,000 pairs whose rejected sides are 20% longer: cut .50, .807 kept (docs/methods/claims.md)."""
    dice = np.random.default_rng(0)
    chosen = np.round(np.exp(dice.normal(4, 0.4, 20_000)))
    rejected = np.round(1.2 * np.exp(dice.normal(4, 0.4, 20_000)))
    gap = rejected - chosen
    cut = balancing_cut(gap / rejected, gap, rejected)
    kept = gap / rejected <= cut
    assert gap.mean() / rejected.mean() > 0.15
    assert cut == pytest.approx(0.5, abs=0.021) and kept.mean() == pytest.approx(0.807, abs=0.025)
    assert abs(gap[kept].mean()) / rejected[kept].mean() < 0.006


def test_balanced_lengths(make):
    """All pairs: the rejected sides are 4.8% longer. Without those of 18%: 3.3%. Without those of 10%: 5% shorter."""
    gaps = [-50] * 10 + [40] * 5 + [-90] * 2 + [0] * 3
    pairs = lengths(make, gaps, filters=Filters(balance_lengths=True))
    assert (pairs.counts.kept["pair"], pairs.counts.lost("pair", "length balance")) == (18, 2)
    longer = lengths(make, [40] * 5 + [-10] * 5, filters=Filters(balance_lengths=True))
    assert longer.counts.kept["pair"] == 10  # longer chosen sides are not what this filter is about


def test_near_identical(make):
    words = " ".join(f"w{i}" for i in range(19))
    weak = make.responses([("a", "w", 0, f"{words} end"), ("b", "w", 0, words), ("c", "w", 0, "other")])
    weaker = make.responses([("a", "v", 0, f"{words} End."), ("b", "v", 0, f"{words} end"), ("c", "v", 0, "words")])
    pairs = model_order(weak, weaker, make.prompts("abc"), filters=Filters(near_identical=0.95))
    assert make.dropped(pairs, "pair") == {make.id("b"): "near-identical"}  # 19 of 20 words; a shares 19 of 21
    assert pairs.counts.kept["pair"] == 2


def test_delta_limits(make):
    rows = [
        (p, "m", s, value) for p, gap in zip("abc", (0.1, 0.5, 3.0), strict=True) for s, value in ((0, gap), (1, 0.0))
    ]
    responses = make.responses([(p, m, s, f"{p}{s}") for p, m, s, _ in rows])
    filters = Filters(min_delta=0.2, max_delta=1.0)
    pairs = best_worst(responses, make.scores(rows), make.prompts("abc"), filters=filters)
    assert [question for question, _, _ in make.short(pairs)] == ["b"]
    assert make.dropped(pairs, "pair") == {make.id("a"): "delta too small", make.id("c"): "delta too large"}


LONG = "how many apples are left when seven of the twenty apples in the basket are eaten"


def pairs_of(make, prompts, **options):
    from w2s_align.records import Prompt, Response, to_table

    table = to_table([Prompt.of(text) for text in prompts], Prompt)
    sides = [
        to_table([Response(one, 0, model, f"{word} {one}") for one in table["id"].to_pylist()], Response)
        for model, word in (("w", "yes"), ("v", "no"))
    ]
    return model_order(*sides, table, **options), dict(zip(prompts, table["id"].to_pylist(), strict=True))


def test_prompts_that_contain_an_evaluation_item_are_dropped_with_their_pairs(make):
    prompts = [f"Please tell me: {LONG}?", "What is 7 + 4?", "something else altogether", "what is 7 + 4"]
    items = {
        "apples": [LONG.upper(), "an item about pears that nobody has ever seen before"],
        "sums": ["What is 7 + 4?"],
    }
    pairs, ids = pairs_of(make, prompts, evaluations=items)
    assert make.dropped(pairs, "prompt") == {ids[prompts[i]]: "contaminated" for i in (0, 1, 3)}
    details = [row["detail"] for row in pairs.dropped.to_pylist() if row["unit"] == "pair"]
    assert details[0] == "w #0 over v #0: 100% of the words of item 0 of apples"
    assert details[1] == details[2] == "w #0 over v #0: 100% of the words of item 0 of sums"
    assert pairs.counts.kept["pair"] == 1 and pairs.counts.lost("pair", "contaminated") == 3
    audit = pairs.audit()
    assert audit.contamination == {"apples": 0.5, "sums": 1.0}
    assert "50.0% of the items of apples occurred in prompts" in " ".join(audit.warnings)
    clean, _ = pairs_of(make, prompts, evaluations={"other": ["an item that is in none of these prompts at all"]})
    assert clean.counts.kept["pair"] == 4 and clean.audit().contamination == {"other": 0.0}


def test_of_prompts_that_repeat_each_other_one_with_a_pair_is_kept(make):
    prompts = [LONG, f"{LONG}?", f"{LONG.upper()} !", "something else altogether", LONG.replace("seven", "nine")]
    pairs, ids = pairs_of(make, prompts, filters=Filters(near_duplicate_prompts=1.0))
    assert make.dropped(pairs, "prompt") == {ids[prompts[i]]: "near-duplicate prompt" for i in (1, 2)}
    pair = next(row for row in pairs.dropped.to_pylist() if row["unit"] == "pair")
    assert pair["detail"] == f"w #0 over v #0: repeats {ids[LONG]} (Jaccard index 1.0)"
    loose, _ = pairs_of(make, prompts, filters=Filters(near_duplicate_prompts=0.5))
    assert loose.counts.lost("pair", "near-duplicate prompt") == 3
    # the first of the group has no pair: the second stays for it
    from w2s_align.records import Prompt, Response, to_table

    table = to_table([Prompt.of(text) for text in prompts[:2]], Prompt)
    one, two = table["id"].to_pylist()
    weak = to_table([Response(one, 0, "w", " "), Response(two, 0, "w", "yes")], Response)
    weaker = to_table([Response(one, 0, "v", "no"), Response(two, 0, "v", "no")], Response)
    left = model_order(weak, weaker, table, filters=Filters(near_duplicate_prompts=1.0))
    assert left.table["prompt_id"].to_pylist() == [two]


def test_the_first_rows_of_every_reason_show_their_texts(make):
    names = [str(i) for i in range(5)]
    weak = make.responses([(p, "w", 0, "cut " * 200, "length") for p in names])
    weaker = make.responses([(p, "v", 0, "no") for p in names])
    pairs = model_order(weak, weaker, make.prompts(names))
    rows = [row for row in pairs.dropped.to_pylist() if row["unit"] == "response"]
    assert [row["excerpt"] is not None for row in rows] == [True, True, True, False, False]
    assert rows[0]["excerpt"].startswith("prompt: question ") and "\nresponse: cut cut" in rows[0]["excerpt"]
    assert len(rows[0]["excerpt"]) < 400
