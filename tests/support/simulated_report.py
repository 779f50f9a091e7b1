"""A whole simulated report: the study of tests/evaluation with pairs, curves, costs and samples around it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
from simulated_study import addition, study

from w2s_align.evaluation import evaluate_arms, verdict
from w2s_align.pairing import Audit
from w2s_align.reporting import Alarm, PairAudit, ReportData, StepCost, TrainingCurve, collect_samples

RECIPE = (Path(__file__).parent / "simulated_recipe.yaml").read_text()


def report_data(problems: int = 300, effect: bool = True, limit: int = 2_000, samples: int = 8) -> ReportData:
    """Return a report as the quickstart would make it, from simulated numbers."""
    table, arms = study(problems=problems, effect=effect, samples=samples)
    results = evaluate_arms(table, arms, "before")
    greedy = {
        arm.name: (arm.runs[0].settings["greedy"].responses, arm.runs[0].settings["greedy"].scores) for arm in arms
    }
    order = {arm.name: greedy[arm.name] for arm in results.arms}
    shown, total = collect_samples(table, order, baseline="before", treatment="dpo", limit=limit)
    return ReportData(
        title="quickstart",
        subtitle="Run 2026-11-22-0241, four-digit addition, tiny models trained from scratch",
        recipe=RECIPE,
        results=results,
        verdict=verdict(results),
        pairs=[_pairs("pairs", 1), _pairs("reversed_pairs", -1)],
        curves=[_curve(seed) for seed in range(3)] + [_sft()],
        samples=shown,
        samples_total=total,
        steps=_steps(),
        versions={
            "w2s-align": "0.1.0",
            "torch": "2.13.0",
            "transformers": "5.19.0",
            "trl": "1.16.0",
            "vllm": "0.32.0",
        },
        warnings=["pairs: 156 of 2,000 prompts gave no pair (identical responses: 131, cut at the limit: 25)."],
    )


def _pairs(name: str, sign: int) -> PairAudit:
    rng = np.random.default_rng(3)
    chosen, rejected = rng.normal(130, 4, size=(2, 1844)).round().astype(int)
    deltas = sign * rng.choice([-1.0, 0.0, 1.0], p=[0.03, 0.67, 0.30], size=1844)
    rejected = rejected - 1
    wrong = addition(4_821, 3_979, forget=0)[0]
    audit = Audit(
        pairs=1844,
        prompts=1844,
        delta={"mean": float(deltas.mean()), "scored": 1844},
        lengths={
            "tokens": {
                "pairs": 1844,
                "unequal": float((chosen != rejected).mean()),
                "longer_wins": float((chosen > rejected).sum() / (chosen != rejected).sum()),
            }
        },
        dropped={
            "identical responses": {"rows": 131, "examples": [wrong]},
            "cut at the limit": {"rows": 25, "examples": [wrong[:40]]},
        },
        gold={"right over wrong" if sign > 0 else "wrong over right": 533, "both right": 17, "both wrong": 1294},
        sources={"weak > weaker" if sign > 0 else "weaker > weak": 1844},
        warnings=[] if sign > 0 else ["The mean delta is -0.27: the rejected side is the better one."],
    )
    rule = "model_order" + ("+reversed" if sign < 0 else "")
    return PairAudit(name, audit, rule, deltas.tolist(), chosen.tolist(), rejected.tolist())


def _curve(seed: int) -> TrainingCurve:
    rng = np.random.default_rng(seed)
    rows = []
    for step in range(1, 51):
        margin = 6 * (1 - math.exp(-step / 18)) if step > 1 else 0.0
        chosen = -21 + 2.2 * (1 - math.exp(-step / 15)) - 0.03 * step
        noise = rng.normal(0, 0.25, size=2)
        rejected = chosen - 4 - margin * 1.6
        rows.append(
            {
                "step": step,
                "loss": math.log1p(math.exp(-margin * 0.5)) + abs(noise[0]) * 0.06,
                "logps/chosen": chosen + noise[0],
                "logps/rejected": rejected + noise[1],
                "rewards/chosen": 0.1 * (chosen + 21 + noise[0]),
                "rewards/rejected": 0.1 * (rejected + 25 + noise[1]),
                "grad_norm": 3 + abs(noise[1]),
            }
        )
    alarms = [Alarm("Both log-probabilities fall.", 44)] if seed == 2 else []
    return TrainingCurve("dpo", "dpo", rows, alarms, str(seed))


def _sft() -> TrainingCurve:
    rng = np.random.default_rng(9)
    rows = [{"step": s, "loss": 0.19 + 0.12 * math.exp(-s / 30) + rng.normal(0, 0.008)} for s in range(1, 101)]
    return TrainingCurve("sft", "sft", rows, seed="0")


def _steps() -> list[StepCost]:
    return [
        StepCost("prompts", "prompts", 0.8, 2300, None, True, "4be1c09f2d77"),
        StepCost("weaker_teacher", "lab_model", 59.2, None, 2_457_600, True, "0c5dd1b87a30"),
        StepCost("weak_teacher", "lab_model", 57.4, None, 2_457_600, True, "a17f4e0b9d61"),
        StepCost("before", "lab_model", 116.0, None, 1_433_600, False, "93ac07e81f52"),
        StepCost("weak", "generate", 41.7, 2000, 256_400, False, "6a2e5bb90c14", {"cut at the limit": 18}),
        StepCost("weaker", "generate", 38.9, 2000, 255_900, False, "f80d3c6124ea", {"cut at the limit": 7}),
        StepCost("pairs", "pair", 0.6, 1844, None, False, "2d9b61e7704c", {"identical responses": 131}),
        StepCost("dpo", "dpo", 83.5, None, 409_600, False, "b6f20e5d118a"),
        StepCost("sft", "sft", 74.1, None, 409_600, False, "57cc90ad3be2"),
        StepCost("scores", "evaluate", 97.3, 27_000, 3_460_000, False, "e1d34f00a9c6"),
    ]
