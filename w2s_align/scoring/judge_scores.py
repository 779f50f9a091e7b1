"""From single verdicts of a judge to scores, outcomes of comparisons, and how far both can be trusted.

Reads rows of :data:`VERDICTS`. Scores: the mean rating, the share of True, or Bradley-Terry strengths within the
prompt. A comparison counts only where both orders could be read; where they contradict each other it is a flip, and a
flip is never a win (docs/methods/judges.md).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.scoring.bradley_terry import bradley_terry
from w2s_align.scoring.judge_prompts import COMPARING, JudgeSettings
from w2s_align.scoring.scorer import Assessment, score_table, unscored
from w2s_align.scoring.table import Scores, check_columns, summarize

if TYPE_CHECKING:
    import polars as pl

VERDICTS = pa.schema(
    [
        pa.field("prompt_id", pa.string(), nullable=False),
        pa.field("model", pa.string(), nullable=False),
        pa.field("sample", pa.int32(), nullable=False),
        pa.field("other_model", pa.string()),
        pa.field("other_sample", pa.int32()),
        pa.field("shown", pa.string()),
        pa.field("aspect", pa.string(), nullable=False),
        pa.field("draw", pa.int32(), nullable=False),
        pa.field("verdict", pa.string(), nullable=False),
        pa.field("value", pa.float64()),
        pa.field("text", pa.string()),
    ]
)
"""One answer of a judge. ``model`` and ``sample`` say which response it is about; ``other_model`` and ``other_sample``
which one stood beside it (null when it was judged by itself), ``shown`` whether it stood ``first`` or ``second``.
``aspect``: what was rated. ``draw``: 0 .. n-1, when the judge is asked several times. ``verdict``: ``win``, ``loss``,
``tie``, ``same text`` (not asked); ``rated``; ``right``, ``wrong``; or why there is none: ``unparsable``, ``cut before
the verdict``, ``the judge failed``, ``the judge's prompt is too long``. ``value``: the rating; 1 for right, 0 for
wrong; the share of right steps; 1, 0.5, 0 for win, tie, loss, with logprob the probability; null when there is none.
``text``: the judge's own words."""

SAME_TEXT = "same text"
"""The verdict on two equal responses, about which nobody is asked: a tie."""
READABLE = ("win", "loss", "tie", "rated", "right", "wrong")
"""The verdicts that a judge gave; all others say why there is none."""
KEYS = ["prompt_id", "model", "sample", "other_model", "other_sample"]
"""What tells a comparison from all others."""
MANY_UNREADABLE, MANY_FLIPS, LEANING = 0.05, 0.25, 0.15
"""From these shares on (and this distance of the first slot's share from one half) there is a warning; our choice."""


@dataclass(frozen=True)
class Reliability:
    """How far verdicts can be trusted.

    Attributes:
        verdicts: Answers of the judge by verdict.
        unreadable: Share of the answers that have none.
        comparisons: Pairs of responses by outcome, see :func:`comparisons`.
        flip_rate: Share of the comparisons with two readable orders in which the orders contradict each other; None
            without comparisons. ``tie`` in one order only is not a flip.
        consistency: Share of the same in which both orders say the same.
        first_slot: Share of the verdicts for the response shown first among those for one of the two; 0.5 without
            position bias.
        strengths: Bradley-Terry strength of each model over all prompts, in nats.
        notes: What a reader of the strengths must know.
    """

    verdicts: dict[str, int]
    unreadable: float
    comparisons: dict[str, int] = field(default_factory=dict)
    flip_rate: float | None = None
    consistency: float | None = None
    first_slot: float | None = None
    strengths: dict[str, float] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def warnings(self) -> list[str]:
        """What a user should know before training on these verdicts."""
        found = []
        if self.unreadable > MANY_UNREADABLE:
            found.append(f"{self.unreadable:.0%} of the judge's answers could not be read: look at its verdicts.")
        if self.flip_rate is not None and self.flip_rate > MANY_FLIPS:
            found.append(
                f"The judge contradicted itself in {self.flip_rate:.0%} of the comparisons when the order changed."
            )
        decided = self.verdicts.get("win", 0) + self.verdicts.get("loss", 0)
        if self.first_slot is not None and decided >= 50 and abs(self.first_slot - 0.5) > LEANING:
            found.append(f"The judge preferred the response shown first in {self.first_slot:.0%} of its decisions.")
        return found


def comparisons(verdicts: pa.Table) -> pl.DataFrame:
    """Return one row for each pair of responses that was compared, with its outcome.

    The outcome, from the side of ``model`` and ``sample``: ``win``, ``loss`` or ``tie`` where both orders say the
    same; ``flip`` where each order prefers another side; ``half tie`` where one order ties and the other does not;
    ``unreadable`` where an order has no readable verdict. Several draws of one order count by their mean. ``value``:
    mean of both orders from 0 (loss) to 1 (win), null when unreadable.

    Args:
        verdicts: Rows of :data:`VERDICTS` of a pairwise judge.

    Raises:
        UserError: They are not of a pairwise judge, or lack a column.
    """
    import polars as pl

    check_columns(verdicts, "verdicts", VERDICTS.names)
    frame = pl.DataFrame(pl.from_arrow(verdicts.select([*KEYS, "shown", "value"]))).filter(
        pl.col("other_model").is_not_null()
    )
    if not frame.height and verdicts.num_rows:
        raise UserError(
            "These verdicts are of responses judged one by one.", fix="Judge with mode: pairwise to compare them."
        )
    same = pl.col("shown").is_null()
    sides = frame.group_by(KEYS, maintain_order=True).agg(
        first=pl.col("value").filter(pl.col("shown").eq("first") | same).mean(),
        second=pl.col("value").filter(pl.col("shown").eq("second") | same).mean(),
    )
    first, second = (pl.col("first") - 0.5).sign(), (pl.col("second") - 0.5).sign()
    outcome = (
        pl.when(first.is_null() | second.is_null())
        .then(pl.lit("unreadable"))
        .when(first * second < 0)
        .then(pl.lit("flip"))
        .when(first != second)
        .then(pl.lit("half tie"))
        .when(first > 0)
        .then(pl.lit("win"))
        .when(first < 0)
        .then(pl.lit("loss"))
        .otherwise(pl.lit("tie"))
    )
    return sides.select(*KEYS, outcome=outcome, value=(pl.col("first") + pl.col("second")) / 2)


def scores_of(
    verdicts: pa.Table, responses: pa.Table, reasons: Sequence[str], settings: JudgeSettings, scorer: str
) -> Scores:
    """Return one score per response; null, with the reason, where the judge gave none.

    pointwise: the mean over aspects of the mean rating; null where an aspect has no readable rating, as Tülu 3 drops
    rows with parse failures (arXiv 2411.15124, section 5.2). verdict: the share of True. pairwise: the Bradley-Terry
    strength among the responses of the prompt, in nats; flips and half ties count by their mean, as ties do. steps:
    the share of right ones. logprob: the mean over comparisons of the probability of the response, itself the mean of
    both orders; a comparison in which the orders contradict each other counts for nobody.

    Args:
        verdicts: Rows of :data:`VERDICTS`.
        responses: The responses, in the order of the result.
        reasons: For each response why it was not judged, or "".
        settings: How it was judged.
        scorer: What ``Score.scorer`` says.
    """
    if settings.mode == "logprob":
        found = _preferences(verdicts)
    else:
        found = _strengths(verdicts, settings.prior) if settings.mode == "pairwise" else _means(verdicts, settings)
    nothing = "no comparison with two readable orders" if settings.mode in COMPARING else "no readable verdict"
    columns = [responses[name].to_pylist() for name in ("prompt_id", "model", "sample")]
    assessments = [
        unscored(reason) if reason else found.get(key, unscored(nothing))
        for reason, key in zip(reasons, zip(*columns, strict=True), strict=True)
    ]
    return summarize(score_table(responses, scorer, assessments))


Found = dict[tuple[str, str, int], Assessment]
"""By prompt, model and sample: what the judge says about the response."""


def _means(verdicts: pa.Table, settings: JudgeSettings) -> Found:
    rows = (verdicts[name].to_pylist() for name in ("prompt_id", "model", "sample", "aspect", "value"))
    values: dict[tuple[str, str, int], dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for prompt_id, model, sample, aspect, value in zip(*rows, strict=True):
        given = values[prompt_id, model, sample][aspect]
        if value is not None:
            given.append(value)
    found: Found = {}
    for key, aspects in values.items():
        means = {aspect: sum(given) / len(given) if given else None for aspect, given in aspects.items()}
        usable = [mean for mean in means.values() if mean is not None]
        if settings.mode == "steps":
            if usable:
                found[key] = Assessment(usable[0], f"{1 - usable[0]:.0%} of the steps are wrong")
        elif settings.mode == "verdict":
            given = aspects[""]
            if given:
                found[key] = Assessment(means[""], f"True in {sum(given):g} of {len(given)} readable answers")
        elif len(usable) < len(means):
            silent = ", ".join(aspect for aspect, mean in means.items() if mean is None)
            found[key] = unscored(f"no readable rating of {silent}")
        else:
            detail = ", ".join(f"{aspect} {mean:g}" for aspect, mean in means.items())
            found[key] = Assessment(sum(usable) / len(usable), detail)
    return found


FLIPPED = "the order of the two decided"
"""Why a response has no score under ``logprob`` although it was compared."""


def _preferences(verdicts: pa.Table) -> Found:
    values: dict[tuple[str, str, int], list[float]] = defaultdict(list)
    flipped: set[tuple[str, str, int]] = set()
    for prompt_id, model, sample, other_model, other_sample, outcome, value in comparisons(verdicts).iter_rows():
        sides = ((prompt_id, model, sample), (prompt_id, other_model, other_sample))
        if outcome == "flip":
            flipped |= {*sides}
        elif value is not None:
            for key, own in zip(sides, (value, 1 - value), strict=True):
                values[key].append(own)
    means = {key: sum(given) / len(given) for key, given in values.items()}
    found = {key: Assessment(mean, f"{len(values[key])} comparisons in both orders") for key, mean in means.items()}
    return {key: unscored(FLIPPED) for key in flipped} | found


def _strengths(verdicts: pa.Table, prior: float) -> Found:
    import polars as pl

    usable = comparisons(verdicts).filter(pl.col("value").is_not_null())
    found: Found = {}
    for (prompt_id,), group in usable.group_by("prompt_id", maintain_order=True):
        wins: list[tuple[str, str, float]] = []
        names: dict[str, tuple[str, int]] = {}
        tally: dict[str, Counter[str]] = defaultdict(Counter)
        for _, model, sample, other_model, other_sample, outcome, value in group.iter_rows():
            left, right = f"{model}\x1f{sample}", f"{other_model}\x1f{other_sample}"
            names |= {left: (model, sample), right: (other_model, other_sample)}
            wins += [(left, right, value), (right, left, 1 - value)]
            tally[left][outcome] += 1
            tally[right][{"win": "loss", "loss": "win"}.get(outcome, outcome)] += 1
        strengths = bradley_terry(wins, prior=prior)
        for name, strength in strengths.values.items():
            detail = ", ".join(f"{n} {outcome}" for outcome, n in sorted(tally[name].items()))
            found[str(prompt_id), *names[name]] = Assessment(strength, detail)
    return found


def reliability_of(verdicts: pa.Table, settings: JudgeSettings) -> Reliability:
    """Count verdicts and, for a pairwise judge, how often it agreed with itself, and how strong the models are."""
    counts = dict(sorted(Counter(verdicts["verdict"].to_pylist()).items()))
    asked = sum(n for verdict, n in counts.items() if verdict != SAME_TEXT)
    lost = sum(n for verdict, n in counts.items() if verdict not in (*READABLE, SAME_TEXT))
    unreadable = lost / asked if asked else 0.0
    if settings.mode not in COMPARING:
        return Reliability(counts, unreadable)
    import polars as pl

    table = comparisons(verdicts)
    outcomes = {outcome: n for outcome, n in table["outcome"].value_counts().sort("outcome").iter_rows()}
    shown = pl.DataFrame(pl.from_arrow(verdicts.select([*KEYS, "shown", "value"])))
    asked_pairs = shown.filter(pl.col("shown").is_not_null()).select(KEYS).unique()
    both = table.filter(pl.col("outcome") != "unreadable").join(asked_pairs, on=KEYS, how="semi")
    decided = shown.filter(pl.col("shown").is_not_null() & (pl.col("value") != 0.5))
    first = (pl.col("shown") == "first") == (pl.col("value") > 0.5)
    wins: dict[tuple[str, str], float] = defaultdict(float)
    for model, other, value in (
        table.filter(pl.col("value").is_not_null()).select("model", "other_model", "value").iter_rows()
    ):
        if model != other:
            wins[model, other] += value
            wins[other, model] += 1 - value
    strengths = bradley_terry([(*pair, weight) for pair, weight in sorted(wins.items())], prior=settings.prior)
    return Reliability(
        counts,
        unreadable,
        outcomes,
        both.select((pl.col("outcome") == "flip").mean()).item(),
        both.select(pl.col("outcome").is_in(["win", "loss", "tie"]).mean()).item(),
        decided.select(first.mean()).item(),
        {name: round(value, 6) for name, value in strengths.values.items()},
        strengths.notes,
    )
