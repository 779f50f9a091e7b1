"""A new pair rule is one file: here one from a temporary folder, used from Python and in a recipe."""

import importlib.util
import io
import json

import pyarrow.parquet as pq
import pytest

from w2s_align.artifacts.artifact import Artifact
from w2s_align.errors import UserError
from w2s_align.pairing import RULES
from w2s_align.runs import recipe_from_text
from w2s_align.steps import CATALOGUE
from w2s_align.steps.pair import pair_step
from w2s_align.steps.work import Work
from w2s_align.terminal.catalogue import kind_options, recipe_schema

RULE = '''
from typing import ClassVar

import polars as pl
from pydantic import Field

from w2s_align.pairing import ScoreRule
from w2s_align.pairing.selection import PAIR_COLUMNS, Selection, declined_by_score


class LongestBest(ScoreRule):
    """of the responses with the best score the longest beats the shortest"""

    name: ClassVar[str] = "longest_best"

    least: int = Field(1, ge=1)
    """Least difference of the lengths, in characters."""

    def select(self, candidates, seed):
        best = candidates.frame.filter(pl.col("score") == pl.col("score").max().over("prompt"))
        best = best.sort("prompt", "chars", "row", descending=[False, True, False])
        ends = best.group_by("prompt", maintain_order=True).agg(
            chosen=pl.col("row").first(), rejected=pl.col("row").last(),
            score_chosen=pl.col("score").first(), score_rejected=pl.col("score").last(),
            gap=pl.col("chars").first().cast(pl.Int64) - pl.col("chars").last().cast(pl.Int64),
        )
        pairs = ends.filter(pl.col("gap") >= self.least).select(PAIR_COLUMNS)
        return Selection(pairs, declined_by_score(pairs, candidates, "lengths too close"))
'''

RECIPE = """
name: mine
steps:
  prompts: {kind: prompts, source: lab/addition, limit: 3}
  weak: {kind: generate, model: org/m, prompts: $prompts, sampling: {n: 3, temperature: 1, max_tokens: 9}}
  scores: {kind: score, responses: $weak, scorer: exact}
  pairs: {kind: pair, rule: longest_best, responses: [$weak], scores: [$scores], OPTIONS}
"""


@pytest.fixture
def rule(tmp_path):
    path = tmp_path / "longest_best.py"
    path.write_text(RULE)
    spec = importlib.util.spec_from_file_location("longest_best", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.LongestBest


@pytest.fixture
def registered(rule, monkeypatch):
    monkeypatch.setitem(CATALOGUE, "pair", pair_step({**RULES, rule.name: rule}))


@pytest.fixture
def tables(make):
    rows = [
        ("a", "m", 0, "one two three"),
        ("a", "m", 1, "one"),
        ("a", "m", 2, "no"),
        ("b", "m", 0, "x"),
        ("b", "m", 1, "y"),
    ]
    values = (1.0, 1.0, 0.0, 1.0, 1.0)
    scores = make.scores([(*row[:3], value) for row, value in zip(rows, values, strict=True)])
    return make.responses(rows), scores, make.prompts("ab")


def config(options):
    return recipe_from_text(RECIPE.replace("OPTIONS", options)).recipe.nodes["pairs"].config


def test_from_python(rule, make, tables):
    pairs = rule.of(least=3).make(tables[:2], tables[2], {"seed": 1})
    assert make.short(pairs) == [("a", "one two three", "one")]
    assert make.dropped(pairs, "prompt") == {make.id("b"): "all scores equal"}
    assert pairs.table["rule"].to_pylist() == ["longest_best"]


def test_in_a_recipe(registered, make, tables, tmp_path):
    made = {}
    for kind, table in zip(("responses", "scores", "prompts"), tables, strict=True):
        folder = tmp_path / kind / "key"
        (folder / "data").mkdir(parents=True)
        pq.write_table(table, folder / "data" / f"{kind}.parquet")
        manifest = {"kind": kind, "type": kind, "key": "key", "inputs": {"prompts": {"kind": "prompts", "key": "key"}}}
        (folder / "artifact.json").write_text(json.dumps(manifest))
        made[f"{kind}.0"] = Artifact.open(folder)
    work = Work("pairs", tmp_path / "out", made, {}, lambda done, total, note: None)
    config("least: 3").run(work)
    (row,) = pq.read_table(next((tmp_path / "out" / "data").glob("train-*"))).to_pylist()
    assert (row["chosen"][0]["content"], row["rejected"][0]["content"]) == ("one two three", "one")
    assert (work.counts["rows_in"], work.counts["kept"], work.counts["dropped"]) == (2, 1, {"all scores equal": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("least: 0", "greater than or equal to 1"),
        ("margin: 1", "longest_best does not take margin.*score_gap, best_worst, worst_of_weak"),
        ("leest: 3", "Did you mean least"),
        ("chosen: $weak", "does not read chosen.*responses and scores"),
    ],
)
def test_its_options_are_checked(registered, options, message):
    with pytest.raises(UserError, match=message):
        config(options)


def test_the_catalogue_and_the_schema_show_it(registered):
    from rich.console import Console

    console = Console(width=200, record=True, file=io.StringIO())
    console.print(kind_options("pair", every=True))
    shown = " ".join(console.export_text().split())
    assert "longest_best, of the responses with the best score the longest beats the shortest" in shown
    assert "Least difference of the lengths, in characters (longest_best)." in shown
    schema = recipe_schema()["$defs"]["step_pair"]["properties"]
    assert schema["least"]["minimum"] == 1 and "longest_best" in schema["rule"]["enum"]


def test_it_does_not_change_the_keys_of_other_rules(rule):
    options = {"rule": "model_order", "chosen": "$a", "rejected": "$b", "seed": 0}
    before, after = (step(**options).content() for step in (CATALOGUE["pair"], pair_step({**RULES, rule.name: rule})))
    assert after == before and "margin" not in before and before["chosen"] == "$a"


def test_two_rules_that_declare_an_option_differently_are_refused(rule):
    class Other(rule):
        """x"""

        name = "other"
        least: int = 2

    with pytest.raises(TypeError, match="longest_best and other declare the option least differently"):
        pair_step({rule.name: rule, "other": Other})
