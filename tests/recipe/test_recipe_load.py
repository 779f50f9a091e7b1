"""Recipes: lines, overrides, suggestions, references, cycles; every mistake is reported, all of them at once."""

from __future__ import annotations

import pytest

from w2s_align.errors import UserError
from w2s_align.recipe import Recipe, apply_overrides, load, parse_document
from w2s_align.steps import CATALOGUE

GOOD = """\
name: good
seed: 3
steps:
  prompts: {kind: prompts, source: lab/addition, limit: 10}
  weak:
    kind: generate
    model: some/weak
    prompts: $prompts
    sampling: {temperature: 0, max_tokens: 8}
  weaker: {kind: generate, model: some/weaker, prompts: $prompts, sampling: {temperature: 0, max_tokens: 8}}
  pairs: {kind: pair, rule: model_order, chosen: $weak, rejected: $weaker}
  dpo: {kind: dpo, model: some/student, pairs: $pairs, learning_rate: 1e-6, seeds: [1, 2]}
  scores:
    kind: evaluate
    prompts: $prompts
    arms: {before: some/student, dpo: $dpo}
    roles: {before: student, dpo: treatment}
    baseline: before
    sampling: {greedy: {temperature: 0, max_tokens: 8}, sampled: {temperature: 1, max_tokens: 8, n: 2}}
"""


def parse(text: str, *overrides: str) -> Recipe:
    document = parse_document(text, "recipe.yaml")
    apply_overrides(document, overrides)
    return load(document, CATALOGUE)


def problems(text: str, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as caught:
        parse(text, *overrides)
    return [str(problem) for problem in caught.value.problems]


def test_generations_draw_random_numbers_of_their_own_unless_a_seed_is_given() -> None:
    def seed(model: str, sampling: str, *, recipe: int = 3, more: str = "") -> object:
        prompts = "  p: {kind: prompts, source: lab/addition, limit: 9}"
        step = f"{{kind: generate, model: {model}, prompts: $p, sampling: {{max_tokens: 8, {sampling}}}{more}}}"
        return parse(f"name: s\nseed: {recipe}\nsteps:\n{prompts}\n  g: {step}\n").nodes["g"].config.seed

    sampled = seed("a/one", "temperature: 1")
    assert sampled == seed("a/one", "temperature: 1.0, top_p: 1, n: 4")  # how many does not matter
    others = [
        seed("a/two", "temperature: 1"),
        seed("a/one", "temperature: 0.7"),
        seed("a/one", "temperature: 1", recipe=4),
        3,
    ]
    assert len({sampled, *others}) == 5
    assert seed("a/one", "temperature: 0") == seed("a/two", "temperature: 0") == 3  # draws none: old artifacts stay
    assert seed("a/one", "temperature: 1", more=", seed: 9") == 9


@pytest.mark.parametrize(
    ("step", "said"),
    [
        (
            "{kind: generate, model: a/b, prompts: $p, sampling: {greedy: {temperature: 0, max_tokens: 8}}}",
            "s.sampling.greedy is not an option of s.sampling.  "
            "Leave out the level greedy: sampling: {temperature: ...}",
        ),
        (
            "{kind: generate, model: a/b, prompts: $p, temperature: 0, sampling: {max_tokens: 8}}",
            "s.temperature is not an option of generate.  It belongs to sampling: sampling: {temperature: 0}",
        ),
        (
            "{kind: evaluate, prompts: $p, arms: {a: a/b}, sampling: {temperature: 0, max_tokens: 8}}",
            "s.sampling has options where names belong.  It holds a group of options under each name.  Add the level: "
            "sampling: {greedy: {temperature: ..., max_tokens: ...}}",
        ),
        (
            "{kind: sft, model: a/b, data: $p, learning_rate: 1e-5, lora: {r: 4}}",
            "s.lora is not an option of sft.  Use adapter: {r: 64, alpha: 128}.",
        ),
        (
            "{kind: sft, model: a/b, data: $p, learning_rate: 1e-5, r: 4}",
            "s.r is not an option of sft.  It belongs to adapter: adapter: {r: 4}",
        ),
    ],
)
def test_an_option_on_another_level_is_one_problem_that_names_the_level(step: str, said: str) -> None:
    found = problems(f"name: s\nsteps:\n  p: {{kind: prompts, source: lab/addition, limit: 9}}\n  s: {step}\n")
    assert found == [f"recipe.yaml:4  {said}"]


def test_nodes_come_after_what_they_read_and_seeds_and_arms_become_nodes() -> None:
    recipe = parse(GOOD)
    assert list(recipe.nodes) == [
        "prompts",
        "weak",
        "weaker",
        "pairs",
        "dpo@1",
        "dpo@2",
        "scores/before/0/greedy",
        "scores/before/0/sampled",
        "scores/dpo/0/greedy",
        "scores/dpo/0/sampled",
        "scores/dpo/1/greedy",
        "scores/dpo/1/sampled",
        "scores",
    ]
    assert recipe.nodes["scores/dpo/1/greedy"].inputs == {"model": "dpo@2", "prompts": "prompts"}
    assert recipe.nodes["pairs"].inputs == {"chosen": "weak", "rejected": "weaker"}
    assert recipe.nodes["dpo@2"].config.seed == 2
    assert recipe.nodes["weak"].config.seed == 3


def test_a_misspelled_option_is_named_with_its_line_and_the_nearest_one() -> None:
    found = problems(GOOD.replace("learning_rate", "learning_rte"))
    assert found == ["recipe.yaml:12  dpo.learning_rte is not an option of dpo.  Did you mean learning_rate?"]


def test_an_option_known_from_elsewhere_is_answered_with_its_replacement() -> None:
    (found,) = problems(GOOD.replace("seeds: [1, 2]", "seeds: [1, 2], warmup_ratio: 0.1"))
    assert "dpo.warmup_ratio is not an option of dpo." in found
    assert "warmup_steps" in found


def test_all_mistakes_are_reported_at_once() -> None:
    text = (
        GOOD.replace("$weak,", "$weka,")
        .replace("kind: prompts", "kind: prompt")
        .replace("max_tokens: 8}\n  w", "}\n  w")
    )
    found = problems(text)
    assert [line.split("  ")[0] for line in found] == ["recipe.yaml:4", "recipe.yaml:9", "recipe.yaml:11"]
    assert "Did you mean prompts?" in found[0]
    assert "weak.sampling.max_tokens is missing." in found[1]
    assert "$weka, which is not a step" in found[2]


@pytest.mark.parametrize(
    ("right", "wrong", "meant"),
    [
        ("rule: model_order", "rule: model_ordr", "model_order"),
        ("dpo: treatment", "dpo: treatmnt", "treatment"),
        ("kind: dpo,", "kind: dpo, optimize_for: sped,", None),
        ("kind: dpo,", "kind: dpo, loss: sigmod,", "sigmoid"),
        ("kind: dpo,", "kind: dpo, dtype: bfloat61,", "bfloat16"),
        ("baseline: before", "baseline: before\n    scorer: {name: numerc}", "numeric"),
        ("baseline: before", "baseline: before\n    engine: {name: transfomers}", "transformers"),
    ],
)
def test_a_misspelled_value_suggests_the_nearest_one(right: str, wrong: str, meant: str | None) -> None:
    (found,) = problems(GOOD.replace(right, wrong))
    assert f"Did you mean {meant}?" in found if meant else "is not an option of dpo" in found


def test_a_missing_reference_suggests_a_step_that_fits() -> None:
    (found,) = problems(GOOD.replace("rejected: $weaker", "rejected: $weakr"))
    assert "pairs.rejected refers to $weakr, which is not a step.  Did you mean $weaker?" in found


def test_the_wrong_kind_of_artifact_is_refused() -> None:
    (found,) = problems(GOOD.replace("pairs: $pairs", "pairs: $weak"))
    refers = "recipe.yaml:12  dpo.pairs refers to $weak, which writes responses."
    assert found == f"{refers}  It reads pairs.  Did you mean $pairs?"


def test_a_value_where_a_reference_belongs_is_refused() -> None:
    (found,) = problems(GOOD.replace("pairs: $pairs", "pairs: pairs"))
    assert "dpo.pairs: pairs is not a reference." in found
    assert "Did you mean $pairs?" in found


def test_a_cycle_is_named() -> None:
    text = """\
name: circle
steps:
  prompts: {kind: prompts, source: lab/addition, limit: 10}
  a: {kind: dpo, model: $b, pairs: $p, learning_rate: 1e-6}
  g: {kind: generate, model: $a, prompts: $prompts, sampling: {temperature: 0, max_tokens: 8}}
  p: {kind: pair, rule: model_order, chosen: $g, rejected: $g}
  b: {kind: sft, model: some/model, data: $p, learning_rate: 1e-6}
"""
    (found,) = problems(text)
    assert "cycle: a -> b -> p -> g -> a" in found


def test_one_model_is_chosen_of_a_step_with_several_seeds() -> None:
    more = "  again: {kind: dpo, model: $dpo, pairs: $pairs, learning_rate: 1e-6}\n"
    (found,) = problems(GOOD + more)
    assert "Choose one: $dpo@1" in found
    assert parse(GOOD + more.replace("$dpo", "$dpo@2")).nodes["again"].inputs["model"] == "dpo@2"
    (found,) = problems(GOOD + more.replace("$dpo", "$dpo@3"))
    assert "dpo has the seeds 1, 2." in found


def test_duplicate_keys_and_broken_yaml_name_their_line() -> None:
    (found,) = problems("name: a\nseed: 1\nseed: 2\nsteps: {}\n")
    assert found == "recipe.yaml:3  The key seed appears twice; the first one is in line 2.  Keep one of them."
    (found,) = problems("name: a\nsteps: [\n")
    assert found.startswith("recipe.yaml:3  This is not valid YAML")
    (found,) = problems("- a\n- b\n")
    assert "A recipe is a mapping" in found


def test_yaml_without_end_is_refused_in_words() -> None:
    assert problems("name: a\nsteps: " + "[" * 5000) == ["recipe.yaml  This YAML is nested too deeply."]


def test_top_level_mistakes() -> None:
    found = problems("nmae: a\nseed: x\n")
    assert any("nmae is not a key of a recipe." in line and "Did you mean name?" in line for line in found)
    assert any("A recipe needs a name" in line for line in found)
    assert any("seed must be a whole number" in line for line in found)
    assert any("A recipe needs steps" in line for line in found)


def test_overrides_set_values_and_are_named_in_messages() -> None:
    recipe = parse(GOOD, "dpo.beta=5", "weak.sampling.temperature=0.7", "seed=9", "dpo.adapter.r=4")
    assert recipe.nodes["dpo@1"].config.model_dump()["beta"] == 5
    assert recipe.nodes["weak"].config.model_dump()["sampling"]["temperature"] == 0.7
    assert recipe.nodes["pairs"].config.seed == 9
    assert recipe.nodes["dpo@1"].config.model_dump()["adapter"]["r"] == 4
    assert "# set on the command line: dpo.beta=5" in recipe.text
    assert problems(GOOD, "dpo.bta=5") == [
        "command line (dpo.bta=5)  dpo.bta is not an option of dpo.  Did you mean beta?"
    ]
    assert "nope is not a step" in problems(GOOD, "nope.x=1")[0]
    assert "is not an override" in problems(GOOD, "dpo.beta")[0]


def test_an_override_of_one_step_leaves_the_other_user_of_an_anchor_alone() -> None:
    text = GOOD.replace(
        "sampling: {temperature: 0, max_tokens: 8}\n  weaker", "sampling: &s {temperature: 0, max_tokens: 8}\n  weaker"
    )
    text = text.replace(
        "prompts: $prompts, sampling: {temperature: 0, max_tokens: 8}}\n  pairs",
        "prompts: $prompts, sampling: *s}\n  pairs",
    )
    recipe = parse(text, "weaker.sampling.max_tokens=99")
    assert recipe.nodes["weaker"].config.model_dump()["sampling"]["max_tokens"] == 99
    assert recipe.nodes["weak"].config.model_dump()["sampling"]["max_tokens"] == 8


def test_a_merged_option_can_be_replaced() -> None:
    text = GOOD.replace("  dpo: {", "  dpo: &dpo {") + "  reversed: {<<: *dpo, learning_rate: 1e-7}\n"
    recipe = parse(text)
    assert recipe.nodes["reversed@1"].config.model_dump()["learning_rate"] == 1e-7
    assert recipe.nodes["reversed@1"].inputs == {"pairs": "pairs"}


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("source: lab/adition, limit: 10", "lab/adition is not a task of the lab."),
        ("source: lab/addition", "makes as many prompts as you want.  Add limit: 1000"),
        ("source: reasoning_gym/chain_sum", "makes as many prompts as you want."),
        ("source: lab/addition, limit: 10, split: dev", "lab/addition has no split dev."),
        ("source: lab/addition, limit: 10, options: {digits: 3}", "takes no options.  Leave them out: digits"),
        ("source: lab/addition, limit: 10, seed: -1", "prompts.seed: -1 is not valid."),
        ("source: lab/addition, limit: 10, seed: 4294967296", "prompts.seed: 4294967296 is not valid."),
    ],
)
def test_prompts_that_cannot_be_made_are_refused_before_anything_runs(broken: str, message: str) -> None:
    (found,) = problems(GOOD.replace("source: lab/addition, limit: 10", broken))
    assert message in found


def test_a_wrong_seed_of_the_recipe_is_said_once() -> None:
    for seed in ("x", "-1", "true", "4294967296"):
        assert problems(GOOD.replace("seed: 3", f"seed: {seed}")) == [
            "recipe.yaml:2  seed must be a whole number from 0 to 4294967295."
        ]


def test_seeds_that_are_not_there_are_said_in_words() -> None:
    (found,) = problems(
        GOOD.replace(
            "prompts: $prompts\n    sampling: {temperature: 0, max",
            "prompts: $prompts@3\n    sampling: {temperature: 0, max",
        )
    )
    assert "refers to $prompts@3, but prompts has no seeds." in found
    (found,) = problems(GOOD.replace("dpo: $dpo}", "dpo: $dpo@7}"))
    assert "but dpo has the seeds 1, 2." in found


def test_a_value_that_fits_no_member_of_a_union_is_said_once() -> None:
    text = "name: a\nsteps:\n  m: {kind: lab_model, slip: a lot}\n"
    (found,) = problems(text)
    assert found.startswith("recipe.yaml:3  m.slip: 'a lot' is not valid.")


def test_steps_refuse_what_cannot_work_before_anything_runs() -> None:
    (found,) = problems(GOOD.replace("rule: model_order", "rule: score_gap"))
    assert "The rule score_gap needs responses." in found
    (found,) = problems(GOOD.replace("baseline: before", "baseline: befor"))
    assert "befor is not an arm.  Did you mean before?" in found
    (found,) = problems(GOOD.replace(", dpo: treatment", ""))
    assert "roles says nothing about dpo" in found


def test_what_is_like_nothing_may_come_from_another_version() -> None:
    (problem,) = problems(GOOD, "dpo.hyperspeed_factor=2")
    assert "Or was the recipe written for another version? This is w2s-align " in problem
    (problem,) = problems(GOOD, "dpo.learning_rte=2")
    assert problem.endswith("Did you mean learning_rate?")
