"""Win rates controlled for length: the fit against statsmodels, a planted bias, the judged task, a scripted judge."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
import statsmodels.api as sm
from scipy import special

from w2s_align.errors import UserError
from w2s_align.evaluation import Answers, Arm, ArmRun, Results, evaluate_arms
from w2s_align.evaluation.length_control import (
    is_extreme,
    length_controlled_win_rate,
)
from w2s_align.evaluation.preference import prefer
from w2s_align.evaluation.published_length_control import GamedRows
from w2s_align.generation import Engine, EngineResources
from w2s_align.records import Prompt, Response, Score, to_table

NAN = float("nan")


def simulated(n: int, theta: float, phi: float, seed: int = 0, longer: float = 400) -> tuple[np.ndarray, np.ndarray]:
    """Preferences of a judge that likes long answers, for a model whose answers are longer by ``longer``."""
    rng = np.random.default_rng(seed)
    delta = np.round(rng.normal(longer, 600, n))
    p = special.expit(theta + phi * np.tanh(delta / delta.std(ddof=1)))
    first, second = rng.random(n) < p, rng.random(n) < p  # two orders
    return (first.astype(float) + second) / 2, delta


def test_the_fit_and_its_errors_are_statsmodels() -> None:
    y, delta = simulated(400, 0.3, 1.0)
    bent = sm.add_constant(np.tanh(delta / delta.std(ddof=1)))
    theirs = sm.GLM(y, bent, family=sm.families.Binomial()).fit(cov_type="HC0", tol=1e-12)
    ours = length_controlled_win_rate(y, delta, prior=0.0)
    assert (ours.theta, ours.phi) == pytest.approx(tuple(theirs.params), abs=1e-5)
    rate = special.expit(theirs.params[0])
    assert ours.estimate.value == pytest.approx(rate, abs=1e-6)
    assert ours.values.std() / np.sqrt(400) == pytest.approx(rate * (1 - rate) * theirs.bse[0], rel=1e-4)
    assert ours.raw.value == pytest.approx(y.mean())


def test_the_interval_is_that_of_fits_on_resampled_problems() -> None:
    y, delta = simulated(300, 0.2, 0.8, seed=1)
    ours = length_controlled_win_rate(y, delta)
    rng = np.random.default_rng(0)
    rates = []
    for _ in range(200):
        drawn = rng.integers(0, 300, 300)
        rates.append(length_controlled_win_rate(y[drawn], delta[drawn]).values.mean())
    assert (ours.estimate.low, ours.estimate.high) == pytest.approx(
        tuple(np.quantile(rates, [0.025, 0.975])), abs=0.02
    )


def test_a_planted_length_bias_is_seen_and_taken_out() -> None:
    found = [length_controlled_win_rate(*simulated(805, 0.0, 1.0, seed=s)) for s in range(20)]
    assert np.mean([f.raw.value for f in found]) > 0.58  # equally good answers, and still most of them "win"
    assert np.mean([f.estimate.value for f in found]) == pytest.approx(0.5, abs=0.012)
    assert np.mean([f.phi for f in found]) == pytest.approx(1.0, abs=0.08)
    held = sum(f.estimate.low <= 0.5 <= f.estimate.high for f in found)
    assert held >= 17


def test_without_a_bias_nothing_is_taken_out() -> None:
    found = length_controlled_win_rate(*simulated(805, 0.4, 0.0, seed=3))
    assert found.estimate.value == pytest.approx(found.raw.value, abs=0.02)


def test_several_answers_to_a_problem_weigh_as_one() -> None:
    y, delta = simulated(50, 0.1, 0.5, seed=2)
    once = length_controlled_win_rate(y, delta)
    places = np.r_[np.arange(50), np.arange(25)]  # half of the problems are answered twice, with the same result
    twice = length_controlled_win_rate(np.r_[y, y[:25]], np.r_[delta, delta[:25]], problems=places)
    assert len(twice.values) == 50
    assert twice.estimate.value == pytest.approx(once.estimate.value, abs=0.01)


@pytest.mark.parametrize(
    ("y", "delta", "value"),
    [
        ([1, 1, 1], [5, -3, 0], 1.0),
        ([0, 0], [5, 9], 0.0),
        ([0.5] * 5, [0] * 5, 0.5),  # the reference against itself
        ([1, 0, NAN], [7, 7, 900], 0.5),
        ([1.0], [30], 1.0),
        ([0.75], [30], 0.75),
        ([], [], None),
        ([NAN, NAN], [1, 2], None),
    ],
)
def test_the_ends_do_not_crash_and_claim_nothing(y: list[float], delta: list[float], value: float | None) -> None:
    found = length_controlled_win_rate(y, delta)
    assert found.estimate.value == (value if value is None else pytest.approx(value, abs=0.12))
    assert len(found.values) == len(y)
    assert np.isfinite(found.values).sum() == np.isfinite(np.array(y, dtype=float)).sum()


def test_separated_lengths_stay_finite() -> None:
    """Every longer answer wins, every shorter one loses: the plain fit has no end, the prior gives it one."""
    found = length_controlled_win_rate([1, 1, 1, 0, 0, 0] * 4, [9, 8, 7, -7, -8, -9] * 4)
    assert found.estimate.value == pytest.approx(0.5, abs=1e-6)
    assert 1 < found.phi < 30


def test_what_is_no_preference_is_refused() -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        length_controlled_win_rate([2.0], [1])
    with pytest.raises(ValueError, match="differ in shape"):
        length_controlled_win_rate([1.0, 0.0], [1])


def test_warnings() -> None:
    assert [is_extreme(*pair) for pair in ((0.5, 0.36), (0.5, 0.39), (0.2, 0.09), (0.9, 0.99), (None, 0.1))] == [
        True,
        False,
        True,
        False,
        False,
    ]


# --- as a task of an evaluation ---


def study(lengths: bool = True) -> tuple[list[Prompt], list[Arm]]:
    """A judged task of 120 problems beside one of right and wrong; dpo only writes longer answers."""
    asked = [
        Prompt.of(f"{task} {i}", answer="1", task=task) for task, n in (("ae", 120), ("sum", 40)) for i in range(n)
    ]
    arms = []
    for name, role, longer, seed in (("before", "student", 0, 1), ("dpo", "treatment", 600, 2)):
        y, delta = simulated(120, 0.0, 3.0, seed, longer)
        outcome = {1.0: "win", 0.5: "flip", 0.0: "loss"}
        scores = [
            Score(p.id, 0, name, "judge:j", v, outcome=outcome[v], length_difference=int(d) if lengths else None)
            for p, v, d in zip(asked[:120], y, delta, strict=True)
        ]
        scores[0] = Score(asked[0].id, 0, name, "judge:j", None, outcome="unreadable", length_difference=3)
        scores += [Score(p.id, 0, name, "numeric", float(i % 2), "1") for i, p in enumerate(asked[120:])]
        arms.append(Arm(name, role, [ArmRun("0", {"greedy": Answers(to_table(scores, Score))})]))
    return asked, arms


def test_a_judged_task_counts_by_its_controlled_win_rate() -> None:
    asked, arms = study()
    results = evaluate_arms(to_table(asked), arms, "before", metrics={"ae": "length_controlled"})
    before, dpo = results.win_rates
    assert (before.arm, dpo.arm, dpo.task, results.unit) == ("before", "dpo", "ae", "share")
    assert dpo.raw.value > 0.7 and dpo.controlled.value < dpo.raw.value - 0.1
    assert set(dpo.outcomes) == {"win", "flip", "loss", "unreadable"}
    assert (sum(dpo.outcomes.values()), dpo.outcomes["unreadable"]) == (120, 1)
    part = next(b for b in results.breakdowns if b.by == "task").parts[0]
    assert part.arms["dpo"].estimate.value == pytest.approx(dpo.controlled.value)
    whole = results.arm("dpo").settings["greedy"].estimate.value
    assert whole == pytest.approx((dpo.controlled.value + 0.5) / 2)
    assert any("control for length moves the win rate of ae" in warning for warning in results.warnings)
    plain = evaluate_arms(to_table(asked), arms, "before")
    assert plain.win_rates == []
    part = next(b for b in plain.breakdowns if b.by == "task").parts[0]
    assert part.arms["dpo"].estimate.value == pytest.approx(dpo.raw.value)


def test_the_published_fit_stands_beside_ours_where_its_data_are_given() -> None:
    asked, arms = study()
    numbered = [replace(p, meta={"index": i}) if p.task == "ae" else p for i, p in enumerate(asked)]
    rng = np.random.default_rng(0)
    lengths, difficulties = rng.normal(0, 1, 400), np.tile(rng.normal(0, 1, 200), 2)
    wins = (rng.random(400) < special.expit(-3 * np.tanh(lengths) + difficulties)).astype(float)
    gamed = GamedRows(wins, lengths, difficulties, dict(enumerate(difficulties[:200])))
    metrics = {"ae": "length_controlled"}
    results = evaluate_arms(to_table(numbered), arms, "before", metrics=metrics, gamed=gamed)
    dpo = results.win_rates[1]
    assert dpo.published is not None and abs(dpo.published.value - 0.5) < 0.1 < dpo.raw.value - dpo.published.value
    assert dpo.published.method != dpo.controlled.method and dpo.published.value != dpo.controlled.value
    assert Results.model_validate_json(results.model_dump_json()) == results
    unknown = GamedRows(wins, lengths, difficulties, {0: 0.0})
    with pytest.raises(UserError, match="no difficulty for 119 of 120 instructions"):
        evaluate_arms(to_table(numbered), arms, "before", metrics=metrics, gamed=unknown)


def test_scores_without_lengths_are_refused() -> None:
    asked, arms = study(lengths=False)
    with pytest.raises(UserError, match="keep no lengths"):
        evaluate_arms(to_table(asked), arms, "before", metrics={"ae": "length_controlled"})


# --- answers in front of a scripted judge ---


class Judge(BaseHTTPRequestHandler):
    """A server that prefers the longer response, unless the request names another rule."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self.reply({"data": [{"id": "referee"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        asked = re.fullmatch(r"(\w+).*<(.*)\|(.*)>", body["messages"][-1]["content"])
        rule, first, second = asked.groups() if asked else ("mute", "", "")  # the request that tries the server out
        longer = "A" if len(first) > len(second) else "B"
        verdict = {"first": "A", "tie": "tie", "mute": "whatever"}.get(rule, longer)
        message = {"role": "assistant", "content": f"Verdict: {verdict}"}
        usage = {"prompt_tokens": 9, "completion_tokens": 3}
        self.reply({"choices": [{"index": 0, "finish_reason": "stop", "message": message}], "usage": usage})

    def reply(self, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture(scope="module")
def referee() -> Iterator[dict]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Judge)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield {
        "template": "{prompt}<{first}|{second}>",
        "engine": Engine(name="openai", api="chat"),
        "resources": EngineResources(base_url=f"http://127.0.0.1:{server.server_port}/v1"),
    }
    server.shutdown()
    server.server_close()


def test_ties_flips_and_silence_are_counted(referee: dict) -> None:
    rules = ["long", "long", "first", "tie", "mute", "same", "failed", "without"]
    problems = [Prompt.of(f"{rule} {i}") for i, rule in enumerate(rules)]
    texts = ["longer answer", "x", "abcd", "abc", "abc", "reference", None, "abc"]
    answers = [
        Response(p.id, 0, "m", t, finish_reason="error" if t is None else "stop")
        for p, t in zip(problems, texts, strict=True)
    ]
    references = {p.id: "reference" for p in problems[:7]}
    found = prefer("referee", to_table(problems), to_table(answers), references, **referee)
    assert found.scores["value"].to_pylist() == [1.0, 0.0, 0.5, 0.5, None, 0.5, None, None]
    assert found.scores["detail"].to_pylist() == [
        "win, +4 characters against the reference",
        "loss, -8 characters against the reference",
        "flip, -5 characters against the reference",
        "tie, -6 characters against the reference",
        "the judge could not be read",
        "tie, +0 characters against the reference",
        "generation failed",
        "no reference answer",
    ]
    assert found.scores["outcome"].to_pylist() == [
        "win", "loss", "flip", "tie", "the judge could not be read", "tie", "generation failed", "no reference answer"
    ]  # fmt: skip
    assert found.scores["length_difference"].to_pylist() == [4, -8, -5, -6, -6, 0, None, None]
    assert found.outcomes == {
        "tie": 2, "win": 1, "loss": 1, "flip": 1, "the judge could not be read": 1, "generation failed": 1,
        "no reference answer": 1,
    }  # fmt: skip
    assert found.verdicts.num_rows == 5 * 2 + 1  # the same text is not asked about
    assert found.verdicts["prompt_id"].to_pylist()[:2] == [problems[0].id] * 2
    assert found.reliability.flip_rate == 1 / 4 and found.asked["prompts"] == 10


def test_several_answers_to_a_problem_are_compared_with_the_reference_alone(referee: dict) -> None:
    problem = Prompt.of("long 1")
    answers = [Response(problem.id, i, "m", "x" * n) for i, n in enumerate((3, 30, 9))]
    found = prefer("referee", to_table([problem]), to_table(answers), {problem.id: "reference!"}, **referee)
    assert found.scores["value"].to_pylist() == [0.0, 1.0, 0.0]
    assert found.verdicts["sample"].to_pylist() == [0, 0, 1, 1, 2, 2]


def test_nothing_to_judge(referee: dict) -> None:
    problem = Prompt.of("long 2")
    failed = to_table([Response(problem.id, 0, "m", None, finish_reason="error")])
    nothing = prefer("referee", to_table([problem]), failed, {problem.id: "a"}, **referee)
    assert (nothing.outcomes, nothing.verdicts.num_rows) == ({"generation failed": 1}, 0)
    with pytest.raises(UserError, match="no reference answer to compare"):
        prefer("referee", to_table([problem]), failed, {}, **referee)
