"""Scorers, judges, selections and combinations as steps of recipes, end to end with tiny real models."""

import json

import pytest

from w2s_align.errors import UserError
from w2s_align.runs import recipe_from_text

HEAD = """\
name: scoring
seed: 0
steps:
  prompts: {{kind: prompts, source: {folder}/p.jsonl}}
  big: &big
    {{kind: generate, model: {judge}, prompts: $prompts, seed: 1, engine: &hf {{name: transformers}},
     sampling: {{temperature: 1, max_tokens: 6, n: 3}}}}
  small: {{<<: *big, model: {other}, seed: 2}}
  duel:
    {{kind: judge, mode: pairwise, model: {judge}, responses: [$big, $small], max_comparisons: 6, engine: *hf,
     template: "{{prompt}} {{first}} or {{second}}?", sampling: &one {{temperature: 0, max_tokens: 1}}}}
  likely: {{kind: score, responses: $big, scorer: {{name: logprob, model: {other}, per_token: true}}}}
  judged: {{kind: pair, rule: judge, responses: [$big, $small], scores: [$duel], filters: &all {{truncated: false}}}}
"""
MORE = """\
  first: {{<<: *big, sampling: {{temperature: 0, max_tokens: 6}}}}
  lab:   {{kind: lab_model, layers: 1, width: 32, steps: 5, batch_size: 8, seed: 1}}
  base:  {{kind: lab_model, layers: 1, width: 32, steps: 5, batch_size: 8, seed: 2}}
  rates:
    {{kind: judge, mode: pointwise, model: {judge}, responses: [$big, $small], aspects: [worth], scale: [0, 9],
     template: "{{prompt}} {{response}}", sampling: *one, engine: *hf}}
  learnt: {{kind: score, responses: $big, scorer: {{name: logprob, model: $lab, reference: $base}}}}
  votes:  {{kind: score, responses: $big, scorer: {{name: self_consistency, answer: text}}}}
  chars:  {{kind: score, responses: $big, scorer: "feature:chars"}}
  gold:   {{kind: score, responses: $big}}
  panel:  {{kind: combine, scores: [$votes, $likely], method: mean, weights: {{"logprob:other": 2}}}}
  ranked:
    {{kind: pair, rule: ranked_scores, responses: [$big], scores: [$votes, $chars], filters: *all,
     levels: [{{scorer: self_consistency}}, {{scorer: "feature:chars", margin: 1, lower_is_better: true}}]}}
  best:
    {{kind: pair, rule: best_worst, responses: [$big], scores: [$votes, $panel], scorer: combined:mean, filters: *all,
     control: reversed}}
  sure:
    {{kind: pair, rule: self_confidence, own: $big, weak: $first, keep_at: 0.3, reject_at: 0.3, answer: text,
     filters: *all}}
  agreed: {{kind: select, by: agreement, responses: $first, other: $first, truncated: true, pad_to: 3}}
  wrong:  {{kind: select, by: incorrect, responses: $big, scores: [$likely]}}
"""


@pytest.fixture(scope="module")
def recipe(tmp_path_factory, judge_model, other_model):
    folder = tmp_path_factory.mktemp("recipe")
    rows = [{"prompt": f"what is {i} + {i}?", "answer": str(2 * i), "task": "sums"} for i in range(12)]
    (folder / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    head, more = (text.format(folder=folder, judge=judge_model, other=other_model) for text in (HEAD, MORE))
    return head, more, folder / "runs"


def test_a_judge_and_a_model_score_for_pairs(recipe, judge_model):
    head, _, runs = recipe
    run = recipe_from_text(head).run(runs)
    duel = run.artifact("duel")
    same = duel.manifest["result"]["judge"]["verdicts"].get("same text", 0)
    assert duel.table("verdicts").num_rows == 12 * 6 * 2 - same
    assert set(run.table("duel")["scorer"].to_pylist()) == {f"judge:{judge_model.name}"}
    assert not (duel.path / "asked").exists() and not (run.artifact("likely").path / "batches").exists()
    outcomes = run.artifact("judged").manifest["counts"]["detail"]["comparisons"]
    assert sum(outcomes.values()) == 72 and outcomes["unreadable"] > 0
    assert set(run.table("judged")["rule"].to_pylist()) == {"judge"}
    likely = run.table("likely")
    assert set(likely["scorer"].to_pylist()) == {"logprob:other"}  # the folder's name, not its path
    assert likely["value"].null_count < 36
    events = []
    recipe_from_text(head).run(runs, on_event=events.append)
    assert {event.kind for event in events} == {"cached"}


@pytest.mark.slow
def test_every_kind_of_score_and_every_rule_that_reads_it(recipe):
    head, more, runs = recipe
    run = recipe_from_text(head + more).run(runs)
    assert set(run.table("learnt")["scorer"].to_pylist()) == {"implicit_reward:lab"}  # the step's name
    assert run.artifact("rates").manifest["result"]["judge"]["verdicts"]["rated"] > 0
    assert run.table("panel").num_rows == 36
    assert {rule.partition(":")[0] for rule in run.table("ranked")["rule"].to_pylist()} == {"ranked_scores"}
    assert set(run.table("best")["rule"].to_pylist()) == {"best_worst+reversed"}
    assert all(delta < 0 for delta in run.table("best")["delta"].to_pylist())
    assert run.table("sure").num_rows > 0
    assert run.table("agreed").num_rows >= 3
    wrong = run.artifact("wrong").manifest["counts"]["detail"]
    assert (
        run.table("wrong").num_rows
        + wrong.get("responses dropped: truncated", 0)
        + wrong.get("responses dropped: unscored", 0)
        == 36
    )


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ("{kind: pair, rule: judge, responses: [$big]}", "rule judge needs scores"),
        ("{kind: pair, rule: ranked_scores, responses: [$big], scores: [$s]}", "ranked_scores needs levels"),
        ("{kind: pair, rule: self_confidence, own: $big}", "needs weak"),
        ("{kind: pair, rule: self_confidence, own: $big, weak: $small, keep_at: 0.9}", "above reject_at"),
        ("{kind: pair, rule: best_worst, responses: [$big], scores: [$s], keep_at: 0.7}", "does not take keep_at"),
        ("{kind: pair, rule: worst_of_weak, responses: [$big], scores: [$s]}", "needs weak_models"),
        ("{kind: pair, rule: model_order, chosen: $big, rejected: $small, own: $big}", "does not read own"),
        ("{kind: select, by: agreement, responses: $big}", "needs other"),
        ("{kind: select, by: confidence, responses: $big, right_at: 0.5}", "does not take right_at"),
        ("{kind: select, by: correct, responses: $big}", "needs scores"),
        ("{kind: combine, scores: [$s], method: mean, thresholds: {exact: 1}}", "belong to method: vote"),
        ("{kind: combine, scores: [$s], weights: {exact: -1}}", "is negative"),
        (
            "{kind: judge, mode: pairwise, model: m, responses: [$big], scale: [1, 10]}",
            "scale belongs to mode pointwise",
        ),
        ("{kind: judge, mode: pairwise, model: m, responses: [$big], template: hm}", "lacks {prompt}"),
        ("{kind: judge, mode: pairwise, model: $nobody, responses: [$big]}", "is not a step"),
        (
            "{kind: score, responses: $big, scorer: {name: logprob, model: $nobody}}",
            "refers to $nobody, which is not a step",
        ),
        ("{kind: score, responses: $big, scorer: {name: logprob, model: $big}}", "which writes responses"),
        ("{kind: score, responses: $big, scorer: {name: reward, modell: m}}", "scorer"),
    ],
)
def test_mistakes_are_refused_before_anything_runs(recipe, step, message):
    text = recipe[0] + "  s: {kind: score, responses: $big}\n" + f"  step: {step}\n"
    with pytest.raises(UserError) as caught:
        recipe_from_text(text)
    assert message in str(caught.value)


def test_a_rule_that_needs_a_judge_says_so(recipe):
    text, _, runs = recipe
    text += "  votes: {kind: score, responses: $big, scorer: self_consistency}\n"
    text += "  pairs: {kind: pair, rule: judge, responses: [$big], scores: [$votes]}\n"
    with pytest.raises(UserError, match=r"\$votes is a step of kind score"):
        recipe_from_text(text).run(runs)


def test_the_model_of_a_scorer_is_part_of_the_key(recipe, judge_model, other_model):
    from w2s_align.artifacts.keys import key_material

    def material(scorer):
        text = recipe[0] + f"  s: {{kind: score, responses: $big, scorer: {scorer}}}\n"
        nodes = recipe_from_text(text).recipe.nodes
        return key_material(nodes["s"], {"responses": "k"})

    one, two = (material(f"{{name: logprob, model: {model}}}") for model in (judge_model, other_model))
    assert one["identity"]["model"] != two["identity"]["model"]
    assert str(judge_model.parent) not in json.dumps(one)
    assert "transformers" in one["identity"] and material("exact")["identity"] == {}
