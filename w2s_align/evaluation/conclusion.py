"""The verdict: one sentence in plain words, computed from Results and nothing else.

It is about one setting (greedy where it exists) and about the treatment arm with the largest difference to the
baseline, among those that are above it if there are any. An arm counts as *above* another when all four hold, as
*below* with the signs turned, else as "unclear":

  1. the Holm-adjusted p-value over all comparisons of the setting is below 0.05;
  2. the paired interval lies on one side of 0;
  3. every training seed alone differs in the same direction;
  4. 1 and 2 hold as well when every answer that could not be scored counts against it.

With several training seeds, p-values and intervals count what another seed would change (``seeds.py``), and the
sentence is about the student that this training gives. With one seed nothing is known of others, and it is about
"this model".

  improved      treatment above the baseline and above every teacher
  partial       treatment above the baseline, but not above every teacher (or there is no teacher)
  worse         treatment below the baseline
  no_effect     anything else; the sentence gives the minimum detectable effect, because "not found" is not "not there"
  undefined     no treatment, or nothing that could be scored
  compared      arms without roles: models are compared, and nothing is concluded about a training

A control that is above the baseline and not below the treatment takes the credit away: ``attributed`` is false then.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from w2s_align.evaluation.results import Comparison, Estimate, Results

ALPHA = 0.05
"""Adjusted p-values below this count: the level that papers use."""
HOW = {
    "greedy": "with greedy decoding",
    "standard": "with each task's own decoding",
    "labels": "on the test items",
    "order": "on the test pairs",
}
"""Sampling settings in a sentence."""

Status = Literal["improved", "partial", "worse", "no_effect", "undefined", "compared"]
"""What came of the evaluation; see the head of this file."""
Direction = Literal["above", "below", "unclear"]
"""Where one arm is against another."""


@dataclass(frozen=True)
class Verdict:
    """The conclusion of an evaluation.

    Attributes:
        about: ``method`` where several training seeds say what another one would give; ``model`` for one.
        status: improved, partial, worse, no_effect, undefined or compared: see the head of this file.
        headline: A few words, e.g. ``Better than both teachers``.
        sentence: The conclusion in plain words, with its numbers.
        setting: The sampling setting that it is about.
        arm: The treatment that it is about; None when there is none.
        attributed: False when a control did as well as the treatment; None without a control or a gain.
        controls: What each control did against the baseline: above, below or unclear.
        caveats: What weakens the conclusion.
    """

    status: Status
    headline: str
    sentence: str
    setting: str
    arm: str | None = None
    attributed: bool | None = None
    controls: dict[str, Direction] = field(default_factory=dict)
    caveats: list[str] = field(default_factory=list)
    about: Literal["method", "model"] = "method"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def verdict(results: Results) -> Verdict:
    """Draw the conclusion; the conditions are at the head of this file."""
    if results.study == "choice":
        return _about_choice(results)
    setting = results.settings[0]
    if results.only_compares:
        return _compared(results, setting)
    tried = _tried(results, setting)
    if not tried:
        return _undefined(results, setting)
    main = max(tried, key=lambda c: (direction(c) == "above", c.difference.value or 0.0))
    taught = {arm.name for arm in results.arms if arm.role == "teacher"}
    teachers = [c for c in results.comparisons if (c.setting, c.first) == (setting, main.first) and c.second in taught]
    status = _status(main, teachers)
    controls = {
        arm.name: direction(c)
        for arm in results.arms
        if arm.role == "control" and (c := results.comparison(setting, arm.name, results.baseline))
    }
    rivals: dict[str, Direction] = {
        name: against
        for name, went in controls.items()
        if went == "above" and (against := _against(results, setting, main, name)) != "above"
    }
    attributed = not rivals if controls and status in ("improved", "partial") else None
    sentence = " ".join(
        part
        for part in (
            _opening(results, main, teachers, status),
            _about_controls(results, setting, controls),
            _about_credit(status, rivals),
        )
        if part
    )
    caveats = list(results.warnings)
    if len(tried) > 1:
        caveats.insert(
            0, f"{main.first} is the best of {len(tried)} treatments; p-values are adjusted for all of them."
        )
    gained = status in ("improved", "partial")
    if gained and not controls:
        caveats.append("No control arm was run, so the gain cannot be told from that of any other training.")
    about: Literal["method", "model"] = "method" if len(main.seeds) > 1 else "model"
    if (gained or status == "worse") and about == "model":
        caveats.append(
            f"There is one training seed of {main.first}: this is about this model. How much another seed would "
            "differ is not known; three or more say something of the method (seeds: [1, 2, 3])."
        )
    headline = _headline(results, status, teachers, rivals, about)
    return Verdict(status, headline, sentence, setting, main.first, attributed, controls, caveats, about)


def direction(c: Comparison) -> Direction:
    """Return whether the first arm is above or below the second, by the four conditions at the head of this file."""
    went = _side(c.difference, c.p_holm)
    if went == "unclear" or (c.worst_case and _side(c.worst_case.difference, c.worst_case.p_holm) != went):
        return "unclear"
    alone = [s.value for s in c.seeds if s.value is not None]
    same = all(value > 0 if went == "above" else value < 0 for value in alone)
    return went if same else "unclear"


def _tried(results: Results, setting: str) -> list[Comparison]:
    """Return the comparisons of the treatments with the baseline, where there is anything to compare."""
    found = [
        c
        for arm in results.arms
        if arm.role == "treatment" and (c := results.comparison(setting, arm.name, results.baseline))
    ]
    return [c for c in found if c.difference.value is not None]


def _about_choice(results: Results) -> Verdict:
    """Draw the conclusion about ways to choose: the best of them against the baseline and against the controls."""
    setting = results.settings[0]
    tried = _tried(results, setting)
    if not tried:
        why = "no way to choose has the role treatment, or none of its responses is scored"
        return Verdict("undefined", "Nothing to judge.", f"No verdict: {why}.", setting, caveats=results.warnings)
    main = max(tried, key=lambda c: (direction(c) == "above", c.difference.value or 0.0))
    rivals = [c for c in results.comparisons if (c.setting, c.first, c.kind) == (setting, main.first, "control")]
    went, beaten = direction(main), [c for c in rivals if direction(c) == "above"]
    estimates = {arm.name: arm.settings[setting].estimate for arm in results.arms}
    mine = estimates[main.first]
    interval = "" if mine.low is None or mine.high is None else f" ({_span(mine.low, mine.high, results.unit)})"
    base = f"{number(estimates[main.second].value, results.unit)} by {main.second}"
    said = [
        f"Chosen by {main.first}, {number(mine.value, results.unit)}{interval} of the problems are answered right, "
        f"against {base} ({p_text(main.p_holm)})"
    ]
    said += [
        f"{number(estimates[arm.name].value, results.unit)} if the best response were always chosen"
        for arm in results.arms
        if arm.role == "ceiling"
    ]
    sides: dict[Direction, str] = {"above": "Above", "unclear": "Not clearly different from", "below": "Below"}
    compared = [
        f"{words} {_listed([_by_how_much(c, results.unit) for c in rivals if direction(c) == side])}."
        for side, words in sides.items()
        if any(direction(c) == side for c in rivals)
    ]
    sentence = " ".join(["; ".join(said) + ".", *compared])
    status: Status = "no_effect" if went == "unclear" else "worse" if went == "below" else "partial"
    if went == "above" and len(beaten) == len(rivals):
        status = "improved"
    headlines: dict[Status, str] = {
        "improved": f"Best chosen by {main.first}.",
        "worse": f"{main.first} chooses worse than {main.second}.",
        "no_effect": f"No way to choose is clearly better than {main.second}.",
    }
    unbeaten = [c.second for c in rivals if c not in beaten]
    good = f"{main.first} chooses well, but not clearly better than {_listed(unbeaten)}." if unbeaten else ""
    headline = headlines.get(status, good)
    controls = {c.second: direction(c) for c in rivals}
    return Verdict(status, headline, sentence, setting, main.first, None, controls, list(results.warnings), "model")


def _by_how_much(c: Comparison, unit: str) -> str:
    difference = "unknown" if c.difference.value is None else f"{_points(c.difference.value, unit)}"
    return f"{c.second} (by {difference}, {p_text(c.p_holm)})"


def _side(difference: Estimate, p: float | None) -> Direction:
    """Return on which side of 0 a difference lies beyond doubt."""
    if p is None or p >= ALPHA or difference.low is None or difference.high is None:
        return "unclear"
    return "above" if difference.low > 0 else "below" if difference.high < 0 else "unclear"


def number(value: float | None, unit: str) -> str:
    """Format a value for people: percent for shares, else a plain number."""
    if value is None:
        return "unknown"
    if unit != "share":
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    percent = 100 * value
    return f"{percent:.1f}%" if 0 < percent < 10 or 90 < percent < 100 else f"{percent:.0f}%"


def p_text(p: float | None) -> str:
    """Format a p-value, e.g. ``p < 0.001``."""
    if p is None:
        return "no p-value"
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}" if p < 0.1 else f"p = {p:.2f}"


def _status(main: Comparison, teachers: list[Comparison]) -> Status:
    went = direction(main)
    if went == "below":
        return "worse"
    if went == "unclear":
        return "no_effect"
    return "improved" if teachers and all(direction(c) == "above" for c in teachers) else "partial"


def _against(results: Results, setting: str, main: Comparison, control: str) -> Direction:
    """Return what the treatment is against a control."""
    c = results.comparison(setting, main.first, control)
    return "unclear" if c is None else direction(c)


def _opening(results: Results, main: Comparison, teachers: list[Comparison], status: Status) -> str:
    arm = results.arm(main.first).settings[main.setting].estimate
    before = results.arm(main.second).settings[main.setting].estimate.value
    base, how = number(before, results.unit), _how(results, main.setting)
    got = _with_interval(results, arm)
    reached = f"{got} {how}, against {base} for {results.reference_in_words} ({p_text(main.p_holm)})"
    unscored = _about_unscored(results, main)
    if status == "worse":
        return f"{main.first} is worse than {results.reference_in_words}: {reached}.{unscored}"
    if status == "no_effect":
        seeds = [s.value for s in main.seeds if s.value is not None]
        split = len({value > 0 for value in seeds}) > 1
        why = " The training seeds point in different directions." if split else ""
        power = _about_power(main.mde, results.unit)
        return f"No effect can be claimed: {main.first} reaches {reached}.{why}{unscored}{power}"
    return f"{main.first} reaches {reached}{_about_teachers(teachers)}.{unscored}{_about_gap(results, main)}"


def _about_gap(results: Results, main: Comparison) -> str:
    """Say how much of the gap to the ceiling a student recovers that has its supervisor for a baseline."""
    if results.arm(results.baseline).role != "teacher":
        return ""
    gap = next((g for g in results.gaps if (g.setting, g.arm) == (main.setting, main.first)), None)
    if gap is None or gap.estimate.value is None:
        return " How much of a gap that recovers is not defined: no ceiling lies above the supervisor." if gap else ""
    low, high = gap.estimate.low, gap.estimate.high
    span = "" if low is None or high is None else f" ({low:.2f} to {high:.2f})"
    return f" It recovers {gap.estimate.value:.2f}{span} of the gap to {gap.upper}."


def _about_unscored(results: Results, main: Comparison) -> str:
    """Name the answers that could not be scored, and what they could change."""
    said = []
    for name in (main.first, main.second):
        s = results.arm(name).settings[main.setting]
        if s.possible is not None:
            span = _span(*s.possible, results.unit)
            said.append(f"{s.unscored:,} of {s.answers:,} answers of {name}, which could be anywhere from {span}")
    if not said:
        return ""
    worst = main.worst_case.difference.value if main.worst_case else None
    least = f"; counted against it, the difference is {_points(worst, results.unit)}" if worst is not None else ""
    return f" Not scored, and left out of these numbers: {'; '.join(said)}{least}."


def _about_power(mde: float | None, unit: str) -> str:
    if mde is None:
        return ""
    if unit == "share" and mde >= 1:
        return " There are too few problems to find a difference of any size."
    return f" A true difference below {_points(mde, unit)} would often be missed."


def _about_teachers(teachers: list[Comparison]) -> str:
    if not teachers:
        return "; no teacher was evaluated, so it cannot be said whether it is above them"
    above = [c for c in teachers if direction(c) == "above"]
    if len(above) == len(teachers):
        whom = {1: "its teacher", 2: "both teachers"}.get(len(teachers), f"all {len(teachers)} teachers")
        return f", and is above {whom} ({p_text(max(c.p_holm or 0.0 for c in teachers))})"
    rest = [c.second for c in teachers if direction(c) == "unclear"]
    below = [c.second for c in teachers if direction(c) == "below"]
    said = [f"it cannot be told apart from {_listed(rest)}"] if rest else []
    said += [f"it stays below {_listed(below)}"] if below else []
    return ", but " + " and ".join(said)


def _about_controls(results: Results, setting: str, controls: dict[str, Direction]) -> str:
    words = {
        "above": f"above {results.reference_in_words} too",
        "below": f"below {results.reference_in_words}",
        "unclear": f"not clearly different from {results.reference_in_words}",
    }
    said = []
    for name, went in controls.items():
        value = results.arm(name).settings[setting].estimate.value
        said.append(f"{name} is {words[went]} ({number(value, results.unit)})")
    return f"Controls: {'; '.join(said)}." if said else ""


def _about_credit(status: Status, rivals: dict[str, Direction]) -> str:
    if status not in ("improved", "partial") or not rivals:
        return ""
    return (
        f"Since {_listed(list(rivals))} did {_how_well(rivals)}, the gain cannot be credited to the preference pairs."
    )


def _how_well(rivals: dict[str, Direction]) -> str:
    """Say how controls did, given what the treatment is against each."""
    found = set(rivals.values())
    return "as well" if found == {"unclear"} else "better" if found == {"below"} else "as well or better"


def _headline(
    results: Results,
    status: Status,
    teachers: list[Comparison],
    rivals: dict[str, Direction],
    about: Literal["method", "model"],
) -> str:
    who = "The student" if about == "method" else "This model"
    if status in ("improved", "partial") and rivals:
        return f"{who} improved, but {_listed(list(rivals))} did {_how_well(rivals)}."
    if status == "improved":
        whom = {1: "its teacher", 2: "both its teachers"}.get(len(teachers), "all its teachers")
        return f"{who} became better than {whom}."
    if status == "partial":
        return f"{who} improved, but is not above every teacher." if teachers else f"{who} improved."
    return f"{who} became worse." if status == "worse" else f"No difference to {results.reference_in_words} was found."


def _compared(results: Results, setting: str) -> Verdict:
    """Say where models without roles stand, and which differ clearly from the one they are compared with."""
    values = {arm.name: arm.settings[setting].estimate for arm in results.arms}
    known = {name: e.value for name, e in values.items() if e.value is not None}
    if not known:
        return Verdict(
            "undefined", "Nothing to judge.", "No answer could be scored.", setting, caveats=list(results.warnings)
        )
    base = results.baseline
    against = {c.first: c for c in results.comparisons if (c.setting, c.second) == (setting, base)}
    clear = {name: went for name, c in against.items() if (went := direction(c)) != "unclear"}
    how = _how(results, setting)
    leader = max(known, key=lambda name: known[name])
    said = f"{leader} reaches {_with_interval(results, values[leader])} {how}"
    parts = [
        f"{name} {_points(c.difference.value, results.unit)} ({p_text(c.p_holm)})"
        for name, c in against.items()
        if c.difference.value is not None
    ]
    sentence = f"{said}." + (f" Differences to {base}: {', '.join(parts)}." if parts else "")
    if len(results.arms) == 1:
        headline = f"{leader}: {number(known[leader], results.unit)}."
    elif not clear:
        headline = f"No model is clearly different from {base}."
    else:
        sides = {side: [name for name, went in clear.items() if went == side] for side in ("above", "below")}
        listed = [f"{_listed(names)} {side} {base}" for side, names in sides.items() if names]
        headline = f"Clearly {', and '.join(listed)}."
    return Verdict("compared", headline, sentence, setting, caveats=list(results.warnings))


def _how(results: Results, setting: str) -> str:
    """Say in which setting, and over how many tasks, a number was measured."""
    how = HOW.get(setting, f"in the setting {setting}")
    return how + (f", on average over {len(results.tasks)} tasks" if results.tasks else "")


def _with_interval(results: Results, e: Estimate) -> str:
    span = "no interval"
    if e.low is not None and e.high is not None:
        span = f"{100 * results.level:.0f}% interval {_span(e.low, e.high, results.unit)}"
    return f"{number(e.value, results.unit)} ({span})"


def _undefined(results: Results, setting: str) -> Verdict:
    treatments = [arm.name for arm in results.arms if arm.role == "treatment"]
    why = (
        f"no answer of {_listed(treatments)} and {results.reference_in_words} on the same problem could be scored"
        if treatments
        else "no arm has the role treatment"
    )
    return Verdict("undefined", "Nothing to judge.", f"No verdict: {why}.", setting, caveats=list(results.warnings))


def _span(low: float, high: float, unit: str) -> str:
    if unit != "share":
        return f"{number(low, unit)} to {number(high, unit)}"
    return f"{number(low, unit).removesuffix('%')} to {number(high, unit)}"


def _points(value: float, unit: str) -> str:
    return f"{100 * value:.1f} points" if unit == "share" else number(value, unit)


def _listed(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
