"""A simulated study with the accuracies of the laboratory: 300 problems, six arms, three training seeds.

Numbers are drawn, texts are written by the rule of the task (column-by-column addition, a wrong answer forgets a
carry), so that tables, page and verdict can be tried without a model. ``study()`` returns what evaluate_arms takes.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

import numpy as np
from scipy import stats

from w2s_align.evaluation import Arm, ArmRun
from w2s_align.evaluation.arms import Answers
from w2s_align.records import Prompt, Response, Score, to_table
from w2s_align.scoring import Outcome

# name: role, runs, mean greedy accuracy, mean sampled accuracy
ARMS = {
    "weaker": ("teacher", 1, 0.076, 0.033),
    "weak": ("teacher", 1, 0.168, 0.291),
    "before": ("student", 1, 0.168, 0.398),
    "sft": ("control", 3, 0.182, 0.294),
    "reversed": ("control", 3, 0.0, 0.0),
    "dpo": ("treatment", 3, 0.995, 0.49),
}


def addition(a: int, b: int, forget: int | None = None) -> tuple[str, str]:
    """Write a + b column by column; the carry of column ``forget`` is lost. Returns the text and the result."""
    lines, digits, carry = [], [], 0
    for column in range(4):
        x, y = a // 10**column % 10, b // 10**column % 10
        total = x + y + carry
        new = 0 if column == forget else total // 10
        lines.append(f"{x} + {y} + {carry} = {total}, write {total % 10}, carry {new}")
        digits.append(str(total % 10))
        carry = new
    result = str(int(str(carry) + "".join(reversed(digits))))
    return "\n".join([*lines, f"#### {result}"]), result


def study(problems: int = 300, samples: int = 8, seed: int = 0, effect: bool = True):
    """Return (problems table, arms); without ``effect`` the tuned student is drawn like the untouched one."""
    rng = np.random.default_rng(seed)
    questions = []
    while len(questions) < problems:
        a, b = (int(x) for x in rng.integers(1000, 10_000, size=2))
        if (a % 10) + (b % 10) >= 10:
            questions.append((a, b))
    prompts = [
        Prompt.of(
            f"Add {a} and {b}, column by column. (no. {i})",
            answer=str(a + b),
            task="lab/addition",
            meta={"carries": i % 4},
        )
        for i, (a, b) in enumerate(questions)
    ]
    difficulty = rng.normal(size=problems)
    arms = []
    for name, (role, runs, greedy, sampled) in ARMS.items():
        if name == "dpo" and not effect:
            greedy, sampled = ARMS["before"][2:]
        made = []
        for run in range(runs):
            own = np.random.default_rng([seed, run, zlib.crc32(name.encode())])
            drawn = {}
            for setting, mean, n in (("greedy", greedy, 1), ("sampled", sampled, samples)):
                chance = stats.norm.cdf(
                    (stats.norm.ppf(np.clip(mean, 1e-9, 1 - 1e-9)) - 0.7 * difficulty / 1.0) / 0.714
                )
                chance = np.clip(chance * mean / max(chance.mean(), 1e-9) + own.normal(0, 0.01) * (0 < mean < 1), 0, 1)
                right = own.random((problems, n)) < chance[:, None]
                drawn[setting] = _answers(name, setting, prompts, questions, right, own)
            made.append(ArmRun(str(run), drawn))
        arms.append(Arm(name, role, made))
    return to_table(prompts), arms


def _answers(name, setting, prompts, questions, right, rng) -> Answers:
    responses, scores = [], []
    for i, (prompt, (a, b)) in enumerate(zip(prompts, questions, strict=True)):
        for sample in range(right.shape[1]):
            text, result = addition(a, b, None if right[i, sample] else 0)
            cut = name == "reversed" and rng.random() < 0.12
            lost = name == "weaker" and setting == "sampled" and rng.random() < 0.01
            responses.append(
                Response(
                    prompt.id,
                    sample,
                    name,
                    text[: len(text) // 2] if cut else text,
                    finish_reason="length" if cut else "stop",
                    prompt_tokens=40,
                    completion_tokens=int(len(text) * 0.9) + int(rng.integers(0, 6)),
                    seed=sample if setting == "sampled" else None,
                )
            )
            made = Score(prompt.id, sample, name, "exact", float(right[i, sample]), result, result)
            if cut:
                made = replace(made, value=0.0, detail=Outcome.NO_ANSWER, answer=None, outcome=Outcome.NO_ANSWER)
            if lost:
                reason = "the checker timed out"
                made = replace(made, value=None, detail=reason, answer=None, outcome=reason)
            scores.append(made)
    return Answers(to_table(scores), to_table(responses))
