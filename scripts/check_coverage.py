"""Measures whether the intervals cover the truth and whether the tests raise false alarms as often as they say.

    python scripts/check_coverage.py [--studies 2000] [--resamples 2000]
    python scripts/check_coverage.py --seeds [--studies 1000]

Each simulated study draws problems with their own difficulty (a Gaussian shared by the arms) and answers to them, and
runs the functions of w2s_align.evaluation.statistics. With --seeds each study also draws training seeds, and every
"improved" of a method without effect is counted, decided as the verdict decides it. The truth is the mean over the
population of problems, known by construction. Prints one line per size and number of answers; 95% intervals should
cover in 93 to 97% of the studies.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
from scipy import stats

from w2s_align.evaluation import mean_interval, paired_difference, performance_gap_recovered
from w2s_align.evaluation.macro import macro_difference, macro_interval, over_seeds
from w2s_align.evaluation.statistics import holm

SIZES = (50, 200, 1000)
ANSWERS = (1, 8)
MEANS = {"weak": 0.30, "student": 0.60, "ceiling": 0.75}
TASK_MEANS = (0.4, 0.6, 0.8)
"""Accuracies of three tasks of unequal size, whose plain mean is estimated."""
SHARED = 0.8
"""Standard deviation of what a problem's difficulty has in common for all arms, on the probit scale."""
OWN = 0.4
"""Standard deviation of what is particular to one arm and problem."""


def chances(rng: np.random.Generator, size: int, means: list[float]) -> np.ndarray:
    """Return each arm's chance to solve each problem (arms x problems); the mean over the population is ``means``."""
    scale = np.sqrt(1 + SHARED**2 + OWN**2)
    shared = rng.normal(0, SHARED, size)
    own = rng.normal(0, OWN, (len(means), size))
    return stats.norm.cdf(stats.norm.ppf(means)[:, None] * scale + shared + own)


def covers(interval, truth: float) -> bool:
    return interval.low is not None and interval.low - 1e-12 <= truth <= interval.high + 1e-12


def study(rng: np.random.Generator, size: int, answers: int, resamples: int) -> dict[str, float | None]:
    """Run one study; return for each check whether it held (None where it is not defined)."""
    weak, student, ceiling = rng.binomial(answers, chances(rng, size, list(MEANS.values()))) / answers
    options = {"resamples": resamples, "seed": int(rng.integers(2**31))}
    pgr = performance_gap_recovered(weak, student, ceiling, **options)
    true_pgr = (MEANS["student"] - MEANS["weak"]) / (MEANS["ceiling"] - MEANS["weak"])
    same = chances(rng, size, [0.5])[0]
    null = paired_difference(*(rng.binomial(answers, same, (2, size)) / answers), **options)
    easy = rng.binomial(answers, chances(rng, size, [0.9])[0]) / answers
    difference = paired_difference(student, weak, **options)
    tasks = np.repeat(np.arange(len(TASK_MEANS)), [size - 3 * (size // 5), size // 5, 2 * (size // 5)])
    chance = np.concatenate([chances(rng, (tasks == t).sum(), [m])[0] for t, m in enumerate(TASK_MEANS)])
    several, again = rng.binomial(answers, chance, (2, size)) / answers
    tasks_null = macro_difference(several, again, tasks, seed=options["seed"])
    return {
        "accuracy 60 %": covers(mean_interval(student, **options), MEANS["student"]),
        "accuracy 90 %": covers(mean_interval(easy, **options), 0.9),
        "difference": covers(difference, MEANS["student"] - MEANS["weak"]),
        "difference, null": covers(null, 0.0),
        "mean of tasks": covers(macro_interval(several, tasks), np.mean(TASK_MEANS)),
        "PGR": covers(pgr, true_pgr) if pgr.value is not None else None,
        "false alarms": null.p is not None and null.p < 0.05,
        "false alarms, tasks": tasks_null.p is not None and tasks_null.p < 0.05,
    }


SPREADS = (0.0, 0.02, 0.05)
"""Standard deviations of accuracy between training seeds."""
TREATMENTS = (1, 4)
RUNS = (1, 3, 5)


def seed_study(
    rng: np.random.Generator, size: int, runs: int, treatments: int, spread: float, resamples: int
) -> tuple[bool, float]:
    """Compare treatments without any effect with the untouched student and two weak teachers.

    Returns:
        Whether one of them would be called improved without being so, and the share of intervals that cover the true
        effect: 0 for the method; with one run that of the model, which other problems would show again.
    """
    student, weak, weaker = chances(rng, size, [0.6, 0.3, 0.2])
    tasks = np.zeros(size, dtype=np.int64)
    options = {"bounds": (0.0, 1.0), "level": 0.95, "tasks": tasks}
    others = [rng.binomial(1, chance).astype(float)[None] for chance in (student, weak, weaker)]
    p_values, sides, covered = [], [], []
    for _ in range(treatments):
        shift = rng.normal(0, spread, (runs, 1))
        values = rng.binomial(1, np.clip(student + shift, 0, 1)).astype(float)
        truth = float((np.clip(student + shift, 0, 1) - student).mean()) if runs == 1 else 0.0
        above = True
        for place, other in enumerate(others):
            seed = int(rng.integers(2**31))
            plain = paired_difference(values.mean(axis=0), other[0], resamples=resamples, seed=seed)
            found = over_seeds(plain, [values, other], options)
            p_values.append(found.p)
            above = above and found.low > 0 and bool((values.mean(axis=1) > other.mean()).all())
            if place == 0:
                covered.append(covers(found, truth))
        sides.append(above and (runs > 1 or truth <= 0))  # of one model a gain of its own is a true claim
    adjusted = holm(p_values)
    claims = [side and max(adjusted[3 * i : 3 * i + 3]) < 0.05 for i, side in enumerate(sides)]
    return any(claims), float(np.mean(covered))


def check_seeds(studies: int, resamples: int, seed: int) -> None:
    """Print false claims and coverage for every number of seeds and treatments, spread and size."""
    for size in (200, 1000):
        for runs in RUNS:
            for treatments in TREATMENTS:
                for spread in SPREADS:
                    rng = np.random.default_rng([seed, size, runs, treatments, int(1000 * spread)])
                    found = [seed_study(rng, size, runs, treatments, spread, resamples) for _ in range(studies)]
                    claims, covered = np.mean([f[0] for f in found]), np.mean([f[1] for f in found])
                    about = "model" if runs == 1 else "method"
                    print(
                        f"{size:>5} problems, {runs} seeds, {treatments} treatments, seeds differ by "
                        f"{100 * spread:.0f} points: falsely improved {100 * claims:.1f}%, interval of the {about}'s "
                        f"effect covers {100 * covered:.1f}%",
                        flush=True,
                    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--studies", type=int, default=2000)
    parser.add_argument("--resamples", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--seeds", action="store_true", help="training seeds and verdicts instead of single intervals")
    options = parser.parse_args()
    if options.seeds:
        check_seeds(options.studies, options.resamples, options.seed)
        return
    for answers in ANSWERS:
        for size in SIZES:
            rng = np.random.default_rng([options.seed, size, answers])
            start = time.perf_counter()
            found = [study(rng, size, answers, options.resamples) for _ in range(options.studies)]
            parts = []
            for name in found[0]:
                held = [f[name] for f in found if f[name] is not None]
                left = f" ({len(found) - len(held)} not defined)" if len(held) < len(found) else ""
                parts.append(f"{name} {100 * np.mean(held):.1f} %{left}")
            seconds = time.perf_counter() - start
            print(f"{size:>5} problems, {answers} answers: {'; '.join(parts)}  [{seconds:.0f} s]", flush=True)


if __name__ == "__main__":
    main()
