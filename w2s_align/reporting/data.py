"""What a report is made from; nothing of recipes, keys or runs.

Everything but the title may be missing; a part without data is left out of the page, not filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.evaluation import Results, Verdict
    from w2s_align.pairing import Audit

MOST_DRAWN = 20_000
"""Pairs whose lengths and deltas are drawn: a histogram of more looks the same, and the lists stay small."""


def spread(total: int, wanted: int) -> list[int]:
    """Return row numbers spread evenly over a table, all of them where it has no more than wanted.

    The first rows would not do: pairs are in the order of their prompts, and so of their sources.
    """
    return list(range(total)) if total <= wanted else [number * total // wanted for number in range(wanted)]


@dataclass(frozen=True)
class PairAudit:
    """A set of preference pairs: its audit, and the lengths and deltas to draw.

    Attributes:
        name: Name of the pairs, e.g. the step that made them.
        audit: What was found in all pairs.
        rule: The rule (or rules) that made them, e.g. ``model_order``.
        deltas: Score of chosen minus score of rejected, for the drawn pairs that have both.
        chosen_lengths: Length of the chosen response of each drawn pair.
        rejected_lengths: Length of its rejected response, in the same order.
        length_unit: What the lengths count: ``tokens`` or ``chars``.
    """

    name: str
    audit: Audit
    rule: str = ""
    deltas: Sequence[float] = ()
    chosen_lengths: Sequence[int] = ()
    rejected_lengths: Sequence[int] = ()
    length_unit: str = "tokens"

    @classmethod
    def of(cls, name: str, audit: Audit, pairs: pa.Table, lengths: pa.Table) -> PairAudit:
        """Pick from tables of pairs and their lengths what is drawn, spread over the tables.

        Args:
            name: Name of the pairs.
            audit: Their audit.
            pairs: Rows of :class:`w2s_align.records.Pair`; the columns ``rule`` and ``delta`` are enough.
            lengths: Lengths of both sides in ``chars`` and ``tokens``, row by row.
        """
        import pyarrow as pa

        known = not (lengths["chosen_tokens"].null_count or lengths["rejected_tokens"].null_count)
        unit = "tokens" if known else "chars"
        rows = pa.array(spread(pairs.num_rows, MOST_DRAWN), pa.int64())
        return cls(
            name,
            audit,
            rule=", ".join(sorted(pairs["rule"].unique().to_pylist())),
            deltas=pairs["delta"].take(rows).drop_null().to_pylist(),
            chosen_lengths=lengths[f"chosen_{unit}"].take(rows).to_pylist(),
            rejected_lengths=lengths[f"rejected_{unit}"].take(rows).to_pylist(),
            length_unit=unit,
        )

    @property
    def lengths(self) -> Mapping[str, float]:
        """What the audit says of the lengths in ``length_unit``; empty without pairs."""
        return self.audit.lengths.get(self.length_unit, {})

    @property
    def unequal(self) -> int:
        """Pairs whose two lengths differ: the denominator of ``longer_wins``."""
        return round(self.lengths["unequal"] * self.lengths["pairs"]) if self.lengths else 0

    @property
    def longer_wins(self) -> float | None:
        """Share of the pairs of unequal length whose longer side is chosen."""
        return self.lengths["longer_wins"] if self.unequal else None

    @property
    def constant_length(self) -> int | None:
        """The length that all drawn responses have; None where they differ."""
        found = {*self.chosen_lengths, *self.rejected_lengths}
        return found.pop() if len(found) == 1 else None

    @property
    def mean_delta(self) -> float | None:
        """Mean delta of all pairs that have one."""
        return self.audit.delta["mean"] if self.audit.delta else None

    @property
    def dropped(self) -> dict[str, int]:
        """Rows that became no pair, by reason."""
        return {reason: entry["rows"] for reason, entry in self.audit.dropped.items()}

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values; what there is once per pair stays in the pairs themselves."""
        return {
            "name": self.name,
            "pairs": self.audit.pairs,
            "rule": self.rule,
            "dropped": self.dropped,
            "examples": {reason: entry["examples"] for reason, entry in self.audit.dropped.items()},
            "length_unit": self.length_unit,
            "gold": self.audit.gold,
            "sources": self.audit.sources,
            "warnings": self.audit.warnings,
            "unequal": self.unequal,
            "longer_wins": self.longer_wins,
            "mean_delta": self.mean_delta,
        }


@dataclass(frozen=True)
class Alarm:
    """What a health check of a training said.

    Attributes:
        message: In words.
        step: When; None where it is about the whole training.
    """

    message: str
    step: int | None = None


@dataclass(frozen=True)
class TrainingCurve:
    """The metrics of one training.

    Attributes:
        model: Name of the trained model, without its seed.
        kind: ``dpo``, ``sft``, ...
        rows: One dict per logged step: ``step``, ``loss``, ``logps/chosen``, ... under TRL's names.
        alarms: What the health checks said.
        seed: Training seed; curves of one model with several seeds are drawn over each other.
    """

    model: str
    kind: str
    rows: Sequence[Mapping[str, Any]]
    alarms: Sequence[Alarm] = ()
    seed: str = ""

    @property
    def name(self) -> str:
        """Name with the seed, as the run calls it."""
        return f"{self.model}@{self.seed}" if self.seed else self.model


@dataclass(frozen=True)
class Answer:
    """What one arm wrote for a problem. The text is untrusted.

    Attributes:
        arm: Name of the arm.
        text: The answer; None when there is none.
        value: Its score; None when it could not be scored.
        detail: What the scorer saw.
        finish_reason: ``stop``, ``length`` or ``error``.
        tokens: Length in the model's tokens.
    """

    arm: str
    text: str | None
    value: float | None
    detail: str = ""
    finish_reason: str = "stop"
    tokens: int | None = None


@dataclass(frozen=True)
class Sample:
    """A problem with the answer of every arm, in the order of the arms."""

    prompt_id: str
    prompt: str
    gold: str | None
    answers: Sequence[Answer]


@dataclass(frozen=True)
class StepCost:
    """What one step took.

    Attributes:
        name: Name of the step.
        kind: Kind of the step.
        seconds: Wall time; of the original work where the artifact was cached.
        rows: Rows written.
        tokens: Tokens generated or trained on.
        cached: Whether the artifact existed already.
        key: Digest of what made the artifact.
        counts: Rows dropped (by reason), cut, failed or unscored.
        gpu_seconds: GPUs times the seconds that they were held; None where it is not known, 0 on a CPU.
        cost: Money, where the recipe gives prices.
    """

    name: str
    kind: str
    seconds: float | None = None
    rows: int | None = None
    tokens: int | None = None
    cached: bool = False
    key: str = ""
    counts: Mapping[str, int | Mapping[str, int]] = field(default_factory=dict)
    gpu_seconds: float | None = None
    cost: float | None = None

    @property
    def left_out(self) -> str:
        """What was dropped, cut, or failed, in words: ``too_long 12, cut 3``."""
        reasons: dict[str, int] = {}
        for name, count in sorted(self.counts.items(), key=lambda entry: entry[0] != "dropped"):
            reasons |= count if isinstance(count, Mapping) else {name: count}
        return ", ".join(f"{reason} {count:,}" for reason, count in reasons.items() if count)


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        title: Name of the study.
        subtitle: One line below it, e.g. run id and date.
        recipe: Text of the resolved recipe.
        results: What the evaluation found.
        verdict: What was concluded; made from ``results`` when it is None.
        pairs: Audits of the preference pairs.
        curves: Training curves.
        samples: Problems with every arm's answer; see :func:`w2s_align.reporting.collect_samples`.
        samples_total: How many problems there were before ``samples`` was cut down; None when it was not.
        steps: Cost of each step, in the order of the run.
        versions: Library to version.
        warnings: Anything the run wants a reader to know.
    """

    title: str
    subtitle: str = ""
    recipe: str = ""
    results: Results | None = None
    verdict: Verdict | None = None
    pairs: Sequence[PairAudit] = ()
    curves: Sequence[TrainingCurve] = ()
    samples: Sequence[Sample] = ()
    samples_total: int | None = None
    steps: Sequence[StepCost] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @property
    def caveats(self) -> list[str]:
        """What weakens the verdict, then what else there is to know, each once."""
        return list(dict.fromkeys([*(self.verdict.caveats if self.verdict else ()), *self.warnings]))

    def to_json(self) -> dict[str, Any]:
        """Return everything but the texts of the samples as plain values."""
        return {
            "title": self.title,
            "subtitle": self.subtitle,
            "recipe": self.recipe,
            "results": self.results.model_dump(mode="json") if self.results else None,
            "verdict": self.verdict.to_dict() if self.verdict else None,
            "pairs": [audit.to_json() for audit in self.pairs],
            "curves": [asdict(curve) for curve in self.curves],
            "samples": len(self.samples),
            "samples_total": self.samples_total,
            "steps": [asdict(step) for step in self.steps],
            "versions": dict(self.versions),
            "warnings": list(self.warnings),
        }
