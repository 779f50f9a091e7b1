"""The audit of pairs: how large and how clean is the delta, and what else could a student learn from them?

Reads a table of the Pair schema (lengths, gold scores and dropped rows when they are there), returns an
:class:`Audit`: numbers for a report, and warnings in words.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from w2s_align.pairing.candidates import own_text
from w2s_align.pairing.counts import count_dropped
from w2s_align.pairing.decontaminate import CONTAMINATED_SHARE
from w2s_align.pairing.licenses import find_licenses, license_warnings

if TYPE_CHECKING:
    import polars as pl

    from w2s_align.pairing.decontaminate import Leaks

LONGER_WINS_ALARM = 0.60
"""Share of pairs that "the longer one is better" gets right above which length may be what is learned: our choice, see
docs/methods/data_filters.md."""
WRONG_ORDER_ALARM = 0.25
"""Share of the decided pairs in the wrong order above which the labels are called noisy: with a quarter of the signs
wrong the mean delta is half of what it would be."""
DROPPED_ALARM = 0.20
"""Share of the prompts without a pair above which the pairs may be another population than the prompts."""
FEW_PAIRS = 100
"""Below this many pairs the 95% interval of a share is wider than 20 points."""
EXAMPLES = 3
"""Dropped rows of each reason that are shown."""
MOST_ROWS = 8
"""Lines of text for sources, tasks and gold each; the rest is summed up in one."""


@dataclass(frozen=True)
class Audit:
    """Facts about a table of pairs.

    Attributes:
        pairs: Number of pairs.
        prompts: Number of different prompts.
        delta: Of ``score_chosen - score_rejected``: ``scored`` (pairs that have it), ``mean``, ``low`` and ``high``
            (95% interval of the mean), ``sd``, ``quantiles`` (at 5, 25, 50, 75 and 95%), ``positive`` (share above
            0). Empty without scores.
        lengths: For ``chars`` and, where known, ``tokens``: mean and median of both sides, ``mean_gap``,
            ``unequal`` (share of the pairs whose lengths differ), ``longer_wins`` (share of these whose longer side is
            chosen), ``baseline`` (share of all pairs that "the longer one is better" gets right, a tie counting one
            half), ``auc`` (how well length alone tells the sides apart).
        gold: Pairs by what the answer check says: ``right over wrong``, ``wrong over right``, ``both right``, ``both
            wrong``, ``unscored``. Empty without gold scores.
        wrong_order: Share in the wrong order of the pairs with exactly one right answer; None without any.
        sources: Pairs by ``chosen model > rejected model``.
        tasks: Pairs by task.
        licenses: License of every model that wrote responses, ``not stated`` where nobody says it.
        contamination: For each evaluation set that was looked for, the share of its items that prompts contained;
            the pairs of these prompts are dropped.
        dropped: For ``unit: reason`` the number of rows and up to three examples.
        warnings: What a user should know before training, in words.
        several_turns: Pairs with a response of several turns; its lengths are of what the assistant says in it.
    """

    pairs: int
    prompts: int
    delta: dict[str, Any] = field(default_factory=dict)
    lengths: dict[str, dict[str, float]] = field(default_factory=dict)
    gold: dict[str, int] = field(default_factory=dict)
    wrong_order: float | None = None
    sources: dict[str, int] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    licenses: dict[str, str] = field(default_factory=dict)
    contamination: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, dict[str, Any]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)
    several_turns: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return the audit as plain values."""
        values = asdict(self)
        if not self.several_turns:  # most pairs have none, and their audits stay the same to the byte
            del values["several_turns"]
        return values

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Audit:
        """Return the audit behind :meth:`to_json`; values that this version does not know are left out."""
        return cls(**{item.name: values[item.name] for item in fields(cls) if item.name in values})

    def __str__(self) -> str:
        """Return the audit as a few aligned lines of plain text, warnings first."""
        lines, before = [f"warning: {warning}" for warning in self.warnings], ""
        for part, name, text in self.rows():
            lines.append(f"{part if part != before else '':<10}{name}{': ' if name and text else ''}{text}")
            before = part
        return "\n".join(lines)

    def rows(self) -> Iterator[tuple[str, str, str]]:
        """Yield the lines of the audit without its warnings: part, name, and text."""
        yield "pairs", "", f"{self.pairs:,} on {self.prompts:,} prompts"
        if self.several_turns:
            text = "have responses of several turns; lengths and text filters are of what the assistant says in them"
            yield "pairs", "", f"{self.several_turns:,} {text}"
        yield from _delta_rows(self.delta)
        for unit, facts in self.lengths.items():
            name = "characters" if unit == "chars" else unit
            yield (
                "length",
                name,
                f"chosen {facts['chosen_mean']:.0f}, rejected {facts['rejected_mean']:.0f} on average",
            )
            alone = f"length alone is right in {_percent(facts['baseline'])} of pairs, AUC {facts['auc']:.2f}"
            yield "length", "", f"of unequal ones, longer is chosen in {_percent(facts['longer_wins'])}; {alone}"
        if self.wrong_order is not None:
            yield "gold", "wrong order", f"{_percent(self.wrong_order)} of the pairs with exactly one right answer"
        for part, counts in (("gold", self.gold), ("sources", self.sources), ("tasks", self.tasks)):
            for name, count in list(counts.items())[:MOST_ROWS]:
                yield part, name or "(none)", f"{count:,}"
            if len(counts) > MOST_ROWS:
                yield part, f"{len(counts) - MOST_ROWS} others", f"{sum(list(counts.values())[MOST_ROWS:]):,}"
        for name, license in self.licenses.items():
            yield "licenses", name, license
        for name, share in self.contamination.items():
            yield "leaks", name, f"{_percent(share)} of its items occurred in prompts, whose pairs are dropped"
        for name, entry in self.dropped.items():
            example = entry["examples"][0].split("\n")[0]
            yield "dropped", name, f"{entry['rows']:,}, e.g. {example}"


def _delta_rows(delta: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    if delta:
        interval = f"({delta['low']:.3g} to {delta['high']:.3g})"
        yield "delta", "mean", f"{delta['mean']:.3g} {interval}, {_percent(delta['positive'])} above 0"
        yield "delta", "quantiles", "  ".join(f"{q}%: {value:.3g}" for q, value in delta["quantiles"].items())


def _percent(share: float) -> str:
    return f"{100 * share:.1f}%"


def audit(
    pairs: pa.Table,
    *,
    lengths: pa.Table | None = None,
    tasks: pa.ChunkedArray | None = None,
    gold_scores: pa.Table | None = None,
    dropped: pa.Table | None = None,
    leaks: Leaks | None = None,
    generator_licenses: Mapping[str, str] | None = None,
) -> Audit:
    """Describe a table of pairs.

    Args:
        pairs: Rows of :class:`w2s_align.records.Pair`.
        lengths: Lengths of both sides, row by row; without them characters are counted here.
        tasks: The task of each pair.
        gold_scores: Scores (:class:`w2s_align.records.Score`) of the responses by an answer check; 1 is right.
        dropped: Rows that the rule and the filters dropped (``Pairs.dropped``).
        leaks: What of evaluation sets was found in the prompts.
        generator_licenses: Licenses of the models that wrote the responses, as far as they are known.
    """
    import polars as pl

    columns = ["prompt_id", "chosen_model", "rejected_model", "chosen_sample", "rejected_sample", "delta"]
    frame = pl.DataFrame(pl.from_arrow(pairs.select(columns)))
    if lengths is None:
        lengths = pa.table({f"{side}_chars": _chars(pairs[side]) for side in ("chosen", "rejected")})
    frame = pl.concat([frame, pl.DataFrame(pl.from_arrow(lengths))], how="horizontal")
    gold = _gold(frame, gold_scores) if gold_scores is not None else {}
    models = {*frame["chosen_model"].unique(), *frame["rejected_model"].unique()}
    facts: dict[str, Any] = {
        "delta": _delta(frame["delta"].drop_nulls()),
        "lengths": _lengths(frame),
        "gold": gold,
        "wrong_order": _wrong_order(gold),
        "sources": _tally(pl.select(pl.format("{} > {}", frame["chosen_model"], frame["rejected_model"])).to_series()),
        "tasks": _tally(pl.Series(pl.from_arrow(tasks))) if tasks is not None else {},
        "licenses": find_licenses(models, generator_licenses or {}),
        "contamination": dict(leaks.shares) if leaks else {},
        "dropped": _dropped(dropped) if dropped is not None else {},
        "several_turns": several_turns(pairs),
    }
    prompts = frame["prompt_id"].n_unique()
    lost = count_dropped(dropped).get("prompt", {}) if dropped is not None else {}
    return Audit(frame.height, prompts, **facts, warnings=_warnings(frame.height, prompts, facts, lost))


def several_turns(pairs: pa.Table) -> int:
    """Return how many pairs have a response of several turns."""
    long = [pc.greater(pc.list_value_length(pairs[side]), 1) for side in ("chosen", "rejected")]
    return int(pc.sum(pc.or_(*long)).as_py() or 0)


def _chars(chats: pa.ChunkedArray) -> pa.Array:
    """Return the characters of what the assistant says in every response."""
    import polars as pl

    responses = pl.DataFrame({"turns": pl.Series(pl.from_arrow(chats))})
    return responses.select(own_text("turns").str.len_chars().cast(pl.Int32)).to_series().to_arrow()


def _delta(delta: pl.Series) -> dict[str, Any]:
    if not len(delta):
        return {}
    mean, sd = float(delta.mean()), float(delta.std() or 0.0)
    error = 1.96 * sd / len(delta) ** 0.5
    quantiles = {str(q): float(delta.quantile(q / 100, "linear")) for q in (5, 25, 50, 75, 95)}
    return {
        "scored": len(delta),
        "mean": mean,
        "low": mean - error,
        "high": mean + error,
        "sd": sd,
        "quantiles": quantiles,
        "positive": float((delta > 0).mean()),
    }


def _lengths(frame: pl.DataFrame) -> dict[str, dict[str, float]]:
    facts = {}
    for unit in ("chars", "tokens"):
        if f"chosen_{unit}" not in frame.columns:
            continue
        known = frame.select(chosen=f"chosen_{unit}", rejected=f"rejected_{unit}").drop_nulls()
        if known.height:
            facts[unit] = _length_facts(known["chosen"], known["rejected"])
    return facts


def _length_facts(chosen: pl.Series, rejected: pl.Series) -> dict[str, float]:
    unequal = int((chosen != rejected).sum())
    longer = int((chosen > rejected).sum())
    baseline = (longer + 0.5 * (len(chosen) - unequal)) / len(chosen)
    return {
        "pairs": len(chosen),
        "chosen_mean": float(chosen.mean()),
        "rejected_mean": float(rejected.mean()),
        "chosen_median": float(chosen.median()),
        "rejected_median": float(rejected.median()),
        "mean_gap": float((chosen.cast(int) - rejected.cast(int)).mean()),
        "unequal": unequal / len(chosen),
        "longer_wins": longer / unequal if unequal else 0.5,
        "baseline": baseline,
        "auc": _auc(chosen, rejected),
    }


def _auc(chosen: pl.Series, rejected: pl.Series) -> float:
    """Return the chance that a random chosen response is longer than a random rejected one (ties count one half)."""
    import polars as pl

    ranks = pl.concat([chosen, rejected]).rank("average")
    n = len(chosen)
    return float((ranks.head(n).sum() - n * (n + 1) / 2) / (n * n))


def _gold(frame: pl.DataFrame, gold_scores: pa.Table) -> dict[str, int]:
    import polars as pl

    gold = pl.DataFrame(pl.from_arrow(gold_scores.select(["prompt_id", "model", "sample", "value"])))
    gold = gold.unique(["prompt_id", "model", "sample"], keep="any")
    wide = frame
    for side in ("chosen", "rejected"):
        names = {"model": f"{side}_model", "sample": f"{side}_sample", "value": f"{side}_gold"}
        keys = ["prompt_id", names["model"], names["sample"]]
        wide = wide.join(gold.rename(names), on=keys, how="left", maintain_order="left")
    chosen, rejected = pl.col("chosen_gold") >= 1, pl.col("rejected_gold") >= 1
    facts = wide.select(
        (chosen & ~rejected).sum().alias("right over wrong"),
        (~chosen & rejected).sum().alias("wrong over right"),
        (chosen & rejected).sum().alias("both right"),
        (~chosen & ~rejected).sum().alias("both wrong"),
        (chosen.is_null() | rejected.is_null()).sum().alias("unscored"),
    )
    return {name: int(value) for name, value in facts.row(0, named=True).items()}


def _wrong_order(gold: Mapping[str, int]) -> float | None:
    decided = gold.get("right over wrong", 0) + gold.get("wrong over right", 0)
    return gold["wrong over right"] / decided if decided else None


def _tally(values: pl.Series) -> dict[str, int]:
    counted = values.alias("value").value_counts(sort=True).sort("count", "value", descending=[True, False])
    return {str(value): int(count) for value, count in counted.iter_rows()}


def _dropped(dropped: pa.Table) -> dict[str, dict[str, Any]]:
    import polars as pl

    frame = pl.DataFrame(pl.from_arrow(dropped))
    example = pl.concat_str("prompt_id", "detail", separator=" ").str.strip_chars()
    if "excerpt" in frame.columns:
        example = pl.concat_str(example, "excerpt", separator="\n", ignore_nulls=True)
    groups = frame.group_by("unit", "reason", maintain_order=True).agg(n=pl.len(), examples=example.head(EXAMPLES))
    return {
        f"{unit}: {reason}": {"rows": n, "examples": examples}
        for unit, reason, n, examples in groups.sort("unit", "reason").iter_rows()
    }


def _warnings(pairs: int, prompts: int, facts: dict[str, Any], lost: Mapping[str, int]) -> list[str]:
    """Say in words what the numbers mean for a training run; ``lost`` counts the prompts without a pair by reason."""
    if not pairs:
        return ["No pairs."]
    found = []
    if pairs < FEW_PAIRS:
        found.append(f"Few pairs ({pairs:,}): shares and means below are rough.")
    delta = facts["delta"]
    if delta and delta["high"] <= 0:
        found.append(f"The mean delta is {delta['mean']:.3g}: the rejected side is the better one.")
    elif delta and delta["low"] <= 0:
        found.append(
            f"The mean delta is {delta['mean']:.3g} and its 95% interval contains 0: there may be no delta to learn."
        )
    unit = "tokens" if "tokens" in facts["lengths"] else "chars"
    lengths = facts["lengths"][unit]
    longer, right = lengths["longer_wins"], lengths["baseline"]
    # A pair of equal lengths tells a student nothing about length: in the baseline it counts one half.
    for side, wins, alone in (("longer", longer, right), ("shorter", 1 - longer, 1 - right)):
        if alone > LONGER_WINS_ALARM:
            share = 100 * wins * lengths["unequal"]
            found.append(f"Chosen is {side} in {share:.0f}% of pairs (in {unit}): length may be what is learned.")
    found += [
        f"{100 * share:.1f}% of the items of {name} occurred in prompts (above 2%, a set is contaminated): these "
        "pairs are dropped."
        for name, share in facts["contamination"].items()
        if share > CONTAMINATED_SHARE
    ]
    found += license_warnings(facts["licenses"])
    gold, wrong = facts["gold"], facts["wrong_order"]
    if wrong is not None and wrong > WRONG_ORDER_ALARM:
        decided = gold["right over wrong"] + gold["wrong over right"]
        found.append(
            f"{gold['wrong over right']} of the {decided} pairs with exactly one right answer are in the wrong order "
            f"({100 * wrong:.0f}%)."
        )
    share = sum(lost.values()) / (sum(lost.values()) + prompts)
    if share > DROPPED_ALARM:
        worst = max(lost, key=lambda reason: lost[reason])
        found.append(f"{100 * share:.0f}% of the prompts have no pair, mostly because of: {worst}.")
    return found
