"""Selections that can be compared: the mixer, one trace per prompt, matched counts, degenerate traces, equalities."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from w2s_align.artifacts.artifact import Artifact
from w2s_align.errors import UserError
from w2s_align.records import Prompt, Response, Score, to_table
from w2s_align.responses import (
    Degenerate,
    degenerate_reasons,
    narrowed,
    precision_and_recall,
    select_agreeing,
    select_all,
    select_incorrect,
    select_mixed,
)
from w2s_align.steps.select import Select
from w2s_align.steps.work import Work

PROMPTS = [Prompt.of(f"question {i}", answer="1") for i in range(1000)]


def both_sides(prompts):
    """Three responses to each prompt: right, wrong, wrong."""
    rows = [Response(p.id, i, "m", f"answer {i} of {p.id}") for p in prompts for i in range(3)]
    return to_table(rows), to_table([Score(r.prompt_id, r.sample, "m", "s", float(r.sample == 0)) for r in rows])


def mixed(share, seed=0, prompts=PROMPTS):
    responses, scores = both_sides(prompts)
    table = select_mixed(responses, scores, to_table(prompts), wrong_share=share, seed=seed).table
    return dict(zip(table["prompt_id"].to_pylist(), table["sample"].to_pylist(), strict=True))


def test_exactly_300_of_1000_are_wrong_and_contain_those_of_a_smaller_share():
    right, fewer, more = mixed(0.0), mixed(0.2), mixed(0.3)
    assert [*right] == [*fewer] == [*more] == [prompt.id for prompt in PROMPTS]
    wrong = [{key for key, sample in found.items() if sample} for found in (right, fewer, more)]
    assert [len(keys) for keys in wrong] == [0, 200, 300] and wrong[1] < wrong[2]
    assert all(more[key] == fewer[key] for key in wrong[1]) and all(more[key] == 0 for key in more.keys() - wrong[2])
    assert mixed(0.3, seed=1) != more


@settings(max_examples=15, deadline=None, derandomize=True)
@given(n=st.integers(1, 40), shares=st.tuples(st.floats(0, 1), st.floats(0, 1)).map(sorted), seed=st.integers(0, 9))
def test_every_mixture_is_exact_and_nested(n, shares, seed):
    small, large = (mixed(share, seed, PROMPTS[:n]) for share in shares)
    wrong = [{key for key, sample in found.items() if sample} for found in (small, large)]
    assert [*small] == [*large] and wrong[0] <= wrong[1]
    assert [len(keys) for keys in wrong] == [int(share * n + 0.5) for share in shares]


def test_prompts_that_lack_a_side_are_left_out_with_the_reason(make):
    responses = make.responses([(p, "m", i, f"{p}{i}") for p in "ab" for i in range(2)])
    scores = make.scores([("a", "m", 0, 1.0), ("a", "m", 1, 1.0), ("b", "m", 0, 0.0), ("b", "m", 1, 0.0)])
    found = select_mixed(responses, scores, make.prompts("abc"), wrong_share=0.5)
    assert not found.table.num_rows
    assert make.dropped(found, "prompt") == {
        make.id("a"): "all right",
        make.id("b"): "all wrong",
        make.id("c"): "no response",
    }


def test_the_same_prompts_one_response_each_and_a_number(make):
    responses = make.responses([(p, "m", i, f"{p}{i}") for p in "abcdef" for i in range(3)])
    every = select_all(responses, make.prompts("abcdef"))
    assert every.table.num_rows == 18
    other = make.responses([(p, "n", 0, "x") for p in "bcdz"])
    shared = narrowed(every, shared_with=[other], one_per_prompt=True, seed=1)
    assert [text[0] for text in shared.table["text"].to_pylist()] == [*"bcd"]
    assert shared.counts.dropped["response"] == {
        "prompt that another selection lacks": 9,
        "another one of the prompt was drawn": 6,
    }
    assert shared.counts.kept == {"prompt": 3, "response": 3}
    rest = narrowed(every, apart_from=[other])
    assert {text[0] for text in rest.table["text"].to_pylist()} == {*"aef"}
    assert rest.counts.dropped["response"] == {"prompt that another selection has": 9}
    two = narrowed(shared, number=2, seed=1)
    assert two.table.num_rows == 2 and narrowed(shared, number=7, seed=1).table.num_rows == 3
    again = narrowed(
        select_all(responses.slice(0, 17), make.prompts("abcdef")), shared_with=[other], one_per_prompt=True, seed=1
    )
    assert again.table.equals(shared.table)  # what happens to other prompts changes no draw


def test_the_published_rule_for_degenerate_traces(make):
    varied = " ".join(f"word{i}" for i in range(300))
    loop = "so we add one more to it " * 4
    texts = {
        "good": f"{varied} \\boxed{{1}}",
        "no box": varied,
        "few different words": "the same two words " * 60 + varied[:200] + " \\boxed{1}",
        "repeats itself at the end": f"{varied} {loop} \\boxed{{1}}",
    }
    texts["good too"] = f"{loop} {varied} \\boxed{{1}}"  # a loop that ended long before the end
    responses = make.responses([("p", "m", i, text) for i, text in enumerate(texts.values())])
    reasons = degenerate_reasons(responses, Degenerate())
    assert dict(zip(texts, reasons, strict=True)) == {
        name: None if name.startswith("good") else name for name in texts
    }
    assert degenerate_reasons(responses, Degenerate(box=False))[1] is None


def test_answers_agree_by_value_or_as_text_and_both_are_counted(make):
    weak = make.responses(
        [("a", "w", 0, "#### 1/2"), ("b", "w", 0, "#### 7"), ("c", "w", 0, "it is 5"), ("d", "w", 0, "#### 3")]
    )
    own = make.responses(
        [("a", "s", 0, "#### 0.5"), ("b", "s", 0, "#### 7."), ("c", "s", 0, "5"), ("d", "s", 0, "#### 4")]
    )
    prompts = make.prompts("abcd")

    def kept(**options):
        found = select_agreeing(weak, own, prompts, **options)
        return found.table.num_rows, [*found.counts.noticed.values()]

    assert kept() == (3, [3, 2]) and kept(compare="text") == (2, [3, 2])
    assert kept(mark="####") == (2, [2, 1]) and kept(mark="####", compare="text") == (1, [2, 1])


def test_a_question_asked_twice_is_kept_where_rows_have_ids_of_their_own():
    prompts = [Prompt(f"id{i}", [{"role": "user", "content": "the same"}]) for i in range(2)]
    sides = [to_table([Response(p.id, 0, model, "#### 1") for p in prompts]) for model in ("w", "s")]
    assert select_agreeing(*sides, to_table(prompts)).table.num_rows == 2


def test_precision_and_recall(make):
    given = make.responses([("a", "m", 0, "x"), ("b", "m", 0, "x"), ("c", "m", 0, "x"), ("d", "m", 0, "x")])
    gold = make.scores([("a", "m", 0, 1.0), ("b", "m", 0, 0.0), ("c", "m", 0, 1.0)])
    found = precision_and_recall(given.take([0, 1, 3]), given, gold)
    assert (found["precision"], found["recall"], found["unscored"]) == (0.5, 0.5, 1)
    assert precision_and_recall(given.slice(0, 0), given, gold)["precision"] is None


def artifact(folder: Path, kind: str, rows: list, **inputs: str) -> Artifact:
    key = folder / kind / f"key{len(inputs)}"
    (key / "data").mkdir(parents=True)
    pq.write_table(to_table(rows), key / "data" / f"{kind}.parquet")
    read = {place: {"kind": other, "key": "key0"} for place, other in inputs.items()}
    (key / "artifact.json").write_text(json.dumps({"kind": kind, "type": kind, "key": key.name, "inputs": read}))
    return Artifact.open(key)


@pytest.mark.parametrize("by", ["agreement", "confidence", "all"])
def test_without_gold_the_same_bytes_are_selected(tmp_path: Path, by: str) -> None:
    responses = [Response(p.id, 0, "m", f"#### {i % 2}") for i, p in enumerate(PROMPTS[:8])]
    scores = [Score(r.prompt_id, 0, "m", "s", float(i < 3)) for i, r in enumerate(responses)]
    artifact(tmp_path, "prompts", PROMPTS[:8])
    read = artifact(tmp_path, "responses", responses, prompts="prompts")
    inputs = {"responses": read, "gold.0": artifact(tmp_path, "scores", scores), "other": read}
    written = []
    for gold in ([], ["$gold"]):
        out = tmp_path / by / str(len(gold))
        work = Work("picked", out, inputs, {}, lambda done, total, note: None)
        out.mkdir(parents=True)
        step = Select(by=by, responses="$r", other="$o" if by == "agreement" else None, gold=gold)
        step.check()
        step.run(work)
        written.append((out / "data" / "responses.parquet").read_bytes())
        assert ("gold" in work.result) == bool(gold)
    assert written[0] == written[1]


def test_options_of_another_way_and_unused_new_ones(make):
    with pytest.raises(UserError, match="Selecting by all does not take wrong_share"):
        Select(by="all", responses="$r", wrong_share=0.3).check()
    assert not {"match", "gold", "compare", "wrong_share"} & Select(by="all", responses="$r").content().keys()
    assert Select(by="all", responses="$r", match="$other").content()["match"] == "$other"
    scores = make.scores([("a", "m", 0, 1.0)])
    assert not select_incorrect(make.responses([("a", "m", 0, "x")]), scores, make.prompts("a")).table.num_rows
