"""The page of a comparison: what differed, paired tests, a plot over the swept value; hostile names stay text."""

from __future__ import annotations

import io
import json

import pytest
from browser import NEEDS_BROWSER, Browser
from rich.console import Console
from simulated_study import study

from w2s_align.evaluation import evaluate_arms
from w2s_align.evaluation.run_comparison import RunArms, best_cell, compare_studies
from w2s_align.reporting.article import Article, Section, Table, write_article
from w2s_align.reporting.compare_page import best_sentence, compare_article, compare_tables, sweep_plot

HOSTILE = "<script>document.title='owned'</script>"


@pytest.fixture(scope="module")
def sweep():
    """Three runs on the same problems; the last one tunes nothing."""
    made = []
    for name, effect in (("beta-a", True), ("beta-b", True), ("beta-c", False)):
        problems, arms = study(problems=40, samples=2, effect=effect)
        made.append(RunArms(name, problems, arms, evaluate_arms(problems, arms, "before")))
    return made


def test_a_sweep_is_a_table_and_a_plot_over_the_value(sweep, tmp_path):
    found = compare_studies(sweep)
    options = {"dpo.beta": [0.1, 1.0, 10.0]}
    files = write_article(compare_article(found, options), tmp_path)
    assert {f.name for f in files} == {"report.html", "report.md", "report.json", "sweep.svg", "sweep.png"}
    text = (tmp_path / "report.md").read_text()
    assert "| dpo.beta | 0.1 | 1.0 | 10.0 |" in text
    assert "same scores" in text  # the first two runs are the same study
    numbers = json.loads((tmp_path / "report.json").read_text())
    dpo = next(row for row in numbers["rows"] if (row["arm"], row["setting"]) == ("dpo", "greedy"))
    assert dpo["cells"][1]["same"] and dpo["cells"][2]["difference"] < -0.5 and dpo["cells"][2]["p_holm"] < 0.001
    svg = (tmp_path / "plots" / "sweep.svg").read_text()
    assert "dpo.beta" in svg and "Greedy decoding" in svg


def test_points_that_are_alike_are_named_together(sweep):
    found = compare_studies(sweep)
    best = best_cell(found)
    assert best is not None
    assert best_sentence(found, best).startswith("Best: beta-a and beta-b, where dpo (greedy decoding) has ")
    same = compare_studies(sweep[:2])
    said = best_sentence(same, best_cell(same))
    assert said.startswith("All points are alike, where dpo") and "No difference from beta-a was found." in said


def test_two_runs_have_no_plot_and_the_difference_in_columns(sweep):
    found = compare_studies([sweep[0], sweep[2]])
    assert sweep_plot(found, {"dpo.beta": [0.1, 10]}) is None
    console = Console(width=200, file=io.StringIO(), color_system=None)
    console.print(compare_tables(found, {"dpo.beta": [0.1, 10]}))
    shown = console.file.getvalue()
    assert "detectable" in shown and "< 0.001" in shown and "1 option differs." in shown


def test_runs_that_do_not_differ_say_so(sweep):
    article = compare_article(compare_studies(sweep[:2]), {})
    assert article.headline == "No difference to test."
    assert "None: the recipes are the same" in article.sections[0].text[0]


@NEEDS_BROWSER
def test_an_article_in_a_real_browser(tmp_path):
    parts = [Section(HOSTILE, [HOSTILE], tables=[Table([HOSTILE, "b"], [[HOSTILE, "1"]], HOSTILE)], code=HOSTILE)]
    page = write_article(Article(HOSTILE, HOSTILE, HOSTILE, parts, caveats=[HOSTILE]), tmp_path)[0]
    with Browser() as browser:
        browser.open(page)
        assert browser.requests() == [page.as_uri()]
        assert browser.console() == []
        assert browser.run("return document.scripts.length") == 0
        assert browser.run("return document.title").startswith(HOSTILE)
        browser.look(360, 740)
        assert browser.run("return document.documentElement.scrollWidth") == 360
