"""What a report consists of beside the page: Markdown, JSON, plots, the terminal table; reports with parts missing."""

import dataclasses
import io
import json
import math
import re
import subprocess
import sys

import pyarrow as pa
import pytest
from PIL import Image
from rich.console import Console
from simulated_report import report_data
from simulated_study import study

from w2s_align.evaluation import Answers, Arm, ArmRun, Results, evaluate_arms
from w2s_align.pairing import audit
from w2s_align.records import Pair, Prompt, Response, Score, to_table
from w2s_align.reporting import (
    PairAudit,
    ReportData,
    Sample,
    StepCost,
    TrainingCurve,
    collect_samples,
    summary_table,
    write_report,
)
from w2s_align.reporting import data as report_data_module
from w2s_align.reporting.arm_plots import arms_plot
from w2s_align.reporting.curve_plots import training_plot
from w2s_align.reporting.data import MOST_DRAWN
from w2s_align.reporting.pair_plots import pairs_plot
from w2s_align.reporting.samples import embed, inert_json


@pytest.fixture(scope="module")
def data():
    return report_data(problems=60)


@pytest.fixture(scope="module")
def folder(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("report")
    write_report(data, out)
    return out


def test_files(folder):
    assert {path.name for path in folder.iterdir()} == {"report.html", "report.md", "report.json", "plots"}
    plots = {path.name for path in (folder / "plots").iterdir()}
    assert {"arms.png", "arms.svg", "differences-greedy.png", "training-dpo.svg", "pairs-pairs.png"} <= plots


def test_json_holds_the_same_numbers(folder, data):
    plain = json.loads((folder / "report.json").read_text())
    assert Results.model_validate(plain["results"]) == data.results
    assert plain["verdict"] == data.verdict.to_dict()
    assert (plain["samples"], plain["samples_total"]) == (60, 60)
    assert plain["pairs"][0]["dropped"] == {"identical responses": 131, "cut at the limit": 25}
    assert "chosen_lengths" not in plain["pairs"][0]


def test_markdown_holds_the_verdict_and_every_arm(folder, data):
    text = (folder / "report.md").read_text()
    assert data.verdict.headline in text
    assert "![Every arm with its interval](plots/arms.png)" in text
    for arm in ("weaker", "weak", "before", "sft", "reversed", "dpo"):
        assert f"| {arm} |" in text
    assert "Both log-probabilities fall." in text


def test_markdown_cannot_be_broken_out_of(tmp_path):
    write_report(ReportData(title="a | b <script> [x](y) `c`", recipe="```\nescaped\n```"), tmp_path)
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# a \\| b \\<script\\> \\[x\\](y) \\`c\\`\n")
    assert "````yaml\n```\nescaped\n```\n````" in text


def test_picture_is_transparent_and_reads_on_white_and_dark(folder):
    picture = Image.open(folder / "plots" / "arms.png").convert("RGBA")
    assert picture.width >= 1600
    assert picture.getpixel((1, 1))[3] == 0
    solid = {pixel[:3] for pixel in picture.get_flattened_data() if pixel[3] == 255}
    assert (15, 146, 136) in solid  # the accent itself: contrast of at least 3 on both grounds


def test_svg_files_are_deterministic(data, tmp_path):
    small = dataclasses.replace(data, samples=[], curves=[], pairs=[])
    for name in ("a", "b"):
        write_report(small, tmp_path / name)
    assert (tmp_path / "a/plots/arms.svg").read_text() == (tmp_path / "b/plots/arms.svg").read_text()
    assert (tmp_path / "a/report.html").read_text() == (tmp_path / "b/report.html").read_text()


def test_a_report_without_an_evaluation(tmp_path):
    write_report(ReportData(title="only data", versions={"torch": "2.13.0"}), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "there is no verdict" in text
    assert 'id="arms"' not in text


def test_verdict_is_made_when_it_is_missing(data, tmp_path):
    write_report(ReportData(title="x", results=data.results), tmp_path)
    assert json.loads((tmp_path / "report.json").read_text())["verdict"] == data.verdict.to_dict()


def test_a_diverged_curve_and_doubled_names_do_no_harm(tmp_path):
    rows = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": math.nan}, {"step": 3}]
    curves = [TrainingCurve("dpo", "dpo", rows), TrainingCurve("dpo", "kto", rows), TrainingCurve("none", "sft", [])]
    write_report(ReportData(title="x", curves=curves), tmp_path)
    assert {path.name for path in (tmp_path / "plots").glob("*.svg")} == {"training-dpo.svg", "training-dpo-2.svg"}
    assert json.loads((tmp_path / "report.json").read_text())["curves"][0]["rows"][1]["loss"] is None


def test_scores_that_are_no_shares(tmp_path):
    problems, arms = study(problems=3, samples=1)
    for one in arms:
        for run in one.runs:
            for setting, made in run.settings.items():
                rows = [
                    Score(p, 0, one.name, "sentences", float(5 + i))
                    for i, p in enumerate(problems.column("id").to_pylist())
                ]
                run.settings[setting] = dataclasses.replace(made, scores=to_table(rows))
    results = evaluate_arms(problems, arms, "before")
    write_report(ReportData(title="sentences", results=results), tmp_path)
    text = (tmp_path / "report.html").read_text()
    assert "Mean score" in text
    assert "points" not in text


def test_terminal_table(data):
    console = Console(width=160, file=io.StringIO(), color_system=None)
    console.print(summary_table(data.results))
    lines = console.file.getvalue().splitlines()
    (dpo,) = [line for line in lines if line.strip().startswith("dpo")]
    assert "tuned student" in dpo
    assert "p 0.003" in dpo  # over problems and three seeds


def test_inert_json_has_nothing_for_an_html_parser():
    text = inert_json({"t": "</script><!-- & \u2028 \ud800"})
    assert not set(text) & set("<>&\u2028")
    assert json.loads(text)["t"].startswith("</script><!-- & ")


def test_long_texts_are_cut_and_say_so():
    text, fitted = embed([Sample("a", "q" * 5000, None, [])], "before", ["dpo"], "share")
    assert fitted == 1
    assert json.loads(text)["rows"][0]["q"].endswith("q\n[1,000 more characters are not on this page]")


def test_samples_of_all_outcomes_are_kept_when_few_may_stay():
    prompts = [Prompt.of(f"{i}") for i in range(40)]
    before = [1.0] * 2 + [0.0] * 36 + [1.0] * 2
    after = [0.0] * 2 + [1.0] * 36 + [1.0] * 2  # two broken, 36 fixed, two right twice

    def tables(name, values):
        scores = [Score(p.id, s, name, "exact", v) for p, v in zip(prompts, values, strict=True) for s in (0, 1)]
        responses = [Response(p.id, s, name, f"{name} {s}") for p in prompts for s in (0, 1)]
        return to_table(responses), to_table(scores)

    arms = {"before": tables("before", before), "dpo": tables("dpo", after)}
    samples, total = collect_samples(to_table(prompts), arms, baseline="before", treatment="dpo", limit=9)
    assert (len(samples), total) == (9, 40)
    kinds = [(s.answers[0].value, s.answers[1].value) for s in samples]
    assert [kinds.count(k) for k in ((1, 0), (0, 1), (1, 1))] == [2, 5, 2]
    assert [a.text for a in samples[0].answers] == ["before 0", "dpo 0"]


def pair(number, chosen="yes", rejected="no"):
    turns = [{"role": "assistant", "content": chosen}], [{"role": "assistant", "content": rejected}]
    delta = float(number)
    return Pair(
        [{"role": "user", "content": "?"}], *turns, "id", "weak", "weaker", 0, 0, delta, 0.0, delta, "model_order"
    )


def lengths_of(chosen, rejected):
    chars = {"chosen_chars": chosen, "rejected_chars": rejected}
    none = pa.nulls(len(chosen), pa.int32())
    return pa.table({**chars, "chosen_tokens": none, "rejected_tokens": none})


def test_pair_audit_comes_from_the_pairing_package():
    pairs = to_table([pair(1), pair(2, "aye", "nay")])
    lengths = lengths_of([3, 3], [2, 3])
    made = PairAudit.of("pairs", audit(pairs, lengths=lengths), pairs, lengths)
    assert (made.audit.pairs, made.audit.sources, made.rule) == (2, {"weak > weaker": 2}, "model_order")
    assert (made.longer_wins, made.unequal, made.mean_delta, made.length_unit) == (1.0, 1, 1.5, "chars")
    assert made.deltas == [1.0, 2.0] and made.rejected_lengths == [2, 3]


def test_of_many_pairs_those_drawn_are_spread_over_all(monkeypatch):
    assert MOST_DRAWN > 1000
    monkeypatch.setattr(report_data_module, "MOST_DRAWN", 4)
    pairs, lengths = to_table([pair(i) for i in range(10)]), lengths_of(list(range(10)), [1] * 10)
    made = PairAudit.of("pairs", audit(pairs, lengths=lengths), pairs, lengths)
    assert made.deltas == [0.0, 2.0, 5.0, 7.0] and made.chosen_lengths == [0, 2, 5, 7]
    assert made.longer_wins == 8 / 9 and made.unequal == 9  # of all pairs, not of those drawn
    assert made.mean_delta == 4.5


def test_the_page_says_of_how_many_pairs_the_longer_is_chosen_and_what_is_constant(tmp_path):
    pairs = to_table([pair(i) for i in range(4)])
    differ, same = lengths_of([3, 3, 3, 3], [2, 3, 4, 3]), lengths_of([7] * 4, [7] * 4)
    made = [PairAudit.of(name, audit(pairs, lengths=n), pairs, n) for name, n in (("differ", differ), ("same", same))]
    write_report(ReportData(title="x", pairs=made), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<dt>Longer one is chosen</dt><dd>50% of the 2 of unequal length</dd>" in page
    assert "<dt>Length of every response</dt><dd>7 characters</dd>" in page
    assert "| differ | model\\_order | 4 | 50% of 2 unequal |" in (tmp_path / "report.md").read_text()


def test_importing_is_cheap():
    code = (
        "import sys, w2s_align.reporting, w2s_align.evaluation;"
        "heavy = {'matplotlib', 'jinja2', 'scipy', 'torch', 'rich', 'polars', 'pandas'} & set(sys.modules);"
        "print(sorted(heavy))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def test_win_rates_gaps_over_tasks_and_details_are_on_the_page_without_a_pointer(tmp_path):
    """A phone has no hovering: what belongs to a number of a breakdown stands in the page itself."""
    tasks = {"chat": 40, "sum": 40}
    asked = [Prompt.of(f"{task} {i}", answer="1", task=task) for task, n in tasks.items() for i in range(n)]
    arms = []
    levels = {"weak": ("teacher", 8), "before": ("student", 12), "dpo": ("treatment", 24), "gold": ("ceiling", 36)}
    for name, (role, right) in levels.items():
        scores = [
            Score(
                p.id,
                0,
                name,
                "judge:j",
                float(i % 40 < right),
                outcome="win",
                length_difference=i % 7 - 3,
            )
            if p.task == "chat"
            else Score(p.id, 0, name, "numeric", float(i % 40 < right), "1")
            for i, p in enumerate(asked)
        ]
        arms.append(Arm(name, role, [ArmRun("0", {"greedy": Answers(to_table(scores, Score))})]))
    results = evaluate_arms(to_table(asked), arms, "before", metrics={"chat": "length_controlled"})
    write_report(ReportData(title="judged", results=results), tmp_path)
    page, text = (tmp_path / "report.html").read_text(), (tmp_path / "report.md").read_text()
    assert "win rates against reference answers" in page and "40 win" in page
    assert page.count("Differences, detectable effects, lengths") == 1
    part = next(p for p in results.breakdowns[0].parts if p.name == "sum").arms["dpo"]
    assert f"detectable {100 * part.mde:.1f}" in page and "without an answer" in page
    assert 'title="interval' not in page
    pgr = next(g for g in results.gaps if g.measure == "PGR")
    assert f"median {pgr.median:.2f}" in page and "of the means over tasks" in page.lower()
    assert "## Win rates against reference answers" in text and "median over tasks" in text


def test_every_plot_is_as_wide_as_the_page(data):
    """One width for all: letters and lines have one size, and no plot is narrower than the tables."""

    def width(plot, narrow):
        return round(float(re.search(r'viewBox="0 0 ([\d.]+)', plot.inline(narrow))[1]), 1)

    one_panel = PairAudit("p", data.pairs[0].audit, chosen_lengths=[1, 2], rejected_lengths=[2, 3])
    plots = [
        arms_plot(data.results),
        pairs_plot(data.pairs[0]),
        pairs_plot(one_panel),
        training_plot(data.curves[-1:]),
    ]
    assert {width(plot, narrow=False) for plot in plots} == {619.2}
    assert {width(plot, narrow=True) for plot in plots} == {302.4}
    assert "max-width" not in plots[2].inline(narrow=False)


def test_seeds_of_a_training_are_drawn_over_each_other(data, folder):
    page = (folder / "report.html").read_text()
    assert page.count("<summary>dpo <small>dpo, 3 seeds, 50 logged steps, 1 alarm</small></summary>") == 1
    assert "dpo@2, step 44: Both log-probabilities fall." in page
    one, all_three = (training_plot(data.curves[:n]).inline(False).count("stroke-width: 1") for n in (1, 3))
    assert all_three > one


def test_what_a_step_left_out_is_said_in_words():
    assert StepCost("s", "generate", counts={"dropped": {"too_long": 0, "same score": 1200}, "cut": 3}).left_out == (
        "same score 1,200, cut 3"
    )
    assert StepCost("s", "generate", counts={"dropped": {"too_long": 0}}).left_out == ""
