"""Evaluation: arms on the same problems, with intervals, paired tests and a verdict.

    from w2s_align.evaluation import Answers, Arm, ArmRun, evaluate_arms, verdict

    results = evaluate_arms(problems, arms, baseline="before")
    print(verdict(results).sentence)

Reads Prompt, Response and Score tables, returns plain results that turn into JSON. Importing this package is cheap:
numpy, pyarrow.compute and scipy are imported when a name that needs them is first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from w2s_align.evaluation.arms import Answers, Arm, ArmRun
    from w2s_align.evaluation.budget import frontier, shuffled_errors, with_shuffled_errors
    from w2s_align.evaluation.calibration import calibration_error, fit_temperature
    from w2s_align.evaluation.compare import evaluate_arms
    from w2s_align.evaluation.conclusion import Verdict, verdict
    from w2s_align.evaluation.conflict_tax import Deception, confidence, deception
    from w2s_align.evaluation.length_control import length_controlled_win_rate
    from w2s_align.evaluation.lm_eval_bridge import run_lm_eval
    from w2s_align.evaluation.macro import macro_difference, macro_interval
    from w2s_align.evaluation.metrics import majority_at_n, pass_at_k, performance_gap_recovered
    from w2s_align.evaluation.preference import prefer
    from w2s_align.evaluation.results import ArmResult, Comparison, Results, SettingResult
    from w2s_align.evaluation.run_comparison import compare_studies
    from w2s_align.evaluation.statistics import (
        Interval,
        PairedDifference,
        holm,
        mcnemar_exact,
        mean_interval,
        minimum_detectable_effect,
        paired_difference,
        sign_flip_test,
        wilson,
    )
    from w2s_align.evaluation.task import load_suite, load_task
    from w2s_align.evaluation.task_prompts import task_problems
    from w2s_align.evaluation.worlds import over_worlds

_MODULE_OF = {
    "calibration_error": "calibration",
    "compare_studies": "run_comparison",
    "Deception": "conflict_tax",
    "confidence": "conflict_tax",
    "deception": "conflict_tax",
    "frontier": "budget",
    "shuffled_errors": "budget",
    "fit_temperature": "calibration",
    "length_controlled_win_rate": "length_control",
    "load_suite": "task",
    "load_task": "task",
    "macro_difference": "macro",
    "macro_interval": "macro",
    "over_worlds": "worlds",
    "prefer": "preference",
    "run_lm_eval": "lm_eval_bridge",
    "task_problems": "task_prompts",
    "Arm": "arms",
    "ArmRun": "arms",
    "Answers": "arms",
    "evaluate_arms": "compare",
    "Verdict": "conclusion",
    "verdict": "conclusion",
    "ArmResult": "results",
    "Comparison": "results",
    "Results": "results",
    "SettingResult": "results",
    "Interval": "statistics",
    "PairedDifference": "statistics",
    "holm": "statistics",
    "majority_at_n": "metrics",
    "mcnemar_exact": "statistics",
    "mean_interval": "statistics",
    "minimum_detectable_effect": "statistics",
    "paired_difference": "statistics",
    "pass_at_k": "metrics",
    "performance_gap_recovered": "metrics",
    "sign_flip_test": "statistics",
    "wilson": "statistics",
    "with_shuffled_errors": "budget",
}
__all__ = [
    "Answers",
    "Arm",
    "ArmResult",
    "ArmRun",
    "Comparison",
    "Deception",
    "Interval",
    "PairedDifference",
    "Results",
    "SettingResult",
    "Verdict",
    "calibration_error",
    "compare_studies",
    "confidence",
    "deception",
    "evaluate_arms",
    "fit_temperature",
    "frontier",
    "holm",
    "length_controlled_win_rate",
    "load_suite",
    "load_task",
    "macro_difference",
    "macro_interval",
    "majority_at_n",
    "mcnemar_exact",
    "mean_interval",
    "minimum_detectable_effect",
    "over_worlds",
    "paired_difference",
    "pass_at_k",
    "performance_gap_recovered",
    "prefer",
    "run_lm_eval",
    "shuffled_errors",
    "sign_flip_test",
    "task_problems",
    "verdict",
    "wilson",
    "with_shuffled_errors",
]


def __getattr__(name: str) -> Any:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(f"{__name__}.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value
