"""What a report is made from: plain values, nothing of recipes, keys or runs.

Everything but the title may be missing; a part without data is left out of the page, not filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any


@dataclass(frozen=True)
class PairAudit:
    """How a set of preference pairs looks.

    Attributes:
        name: Name of the pairs, e.g. the step that made them.
        pairs: How many there are.
        rule: Rule that made them, e.g. ``model_order``.
        dropped: Rows that became no pair, by reason.
        examples: A few of the dropped rows in words, by reason.
        deltas: Score of chosen minus score of rejected, one per pair that has both.
        chosen_lengths: Length of each chosen response.
        rejected_lengths: Length of each rejected response, in the same order.
        length_unit: What the lengths count: ``tokens`` or ``characters``.
        gold: Pairs by what the answer check says, e.g. ``right over wrong``; diagnosis only.
        sources: Pairs by ``chosen model > rejected model``.
        warnings: What to know before training on them.
    """

    name: str
    pairs: int
    rule: str = ""
    dropped: dict[str, int] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)
    deltas: Sequence[float] = ()
    chosen_lengths: Sequence[float] = ()
    rejected_lengths: Sequence[float] = ()
    length_unit: str = "tokens"
    gold: dict[str, int] = field(default_factory=dict)
    sources: dict[str, int] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    @classmethod
    def of(cls, name: str, audit: Mapping[str, Any], **more: Any) -> PairAudit:
        """Make one of the plain values of ``w2s_align.pairing.Audit.to_json()``.

        Args:
            name: Name of the pairs.
            audit: The values.
            **more: What the audit does not keep row by row: ``rule``, ``deltas``, ``chosen_lengths``,
                ``rejected_lengths``, ``length_unit``.
        """
        return cls(
            name=name,
            pairs=audit["pairs"],
            dropped={reason: entry["rows"] for reason, entry in audit["dropped"].items()},
            examples={reason: entry["examples"] for reason, entry in audit["dropped"].items()},
            gold=audit["gold"],
            sources=audit["sources"],
            warnings=audit["warnings"],
            **more,
        )

    @property
    def longer_wins(self) -> float | None:
        """Share of the pairs of unequal length whose longer side is chosen."""
        unequal = [c > r for c, r in zip(self.chosen_lengths, self.rejected_lengths, strict=True) if c != r]
        return sum(unequal) / len(unequal) if unequal else None

    @property
    def mean_delta(self) -> float | None:
        """Mean of the deltas."""
        return sum(self.deltas) / len(self.deltas) if self.deltas else None

    def to_json(self) -> dict[str, Any]:
        """Return the numbers as plain values; what there is once per pair stays in the pairs themselves."""
        rows = ("deltas", "chosen_lengths", "rejected_lengths")
        plain = {key: value for key, value in asdict(self).items() if key not in rows}
        return {**plain, "longer_wins": self.longer_wins, "mean_delta": self.mean_delta}


@dataclass(frozen=True)
class TrainingCurve:
    """The metrics of one training.

    Attributes:
        model: Name of the trained model; runs of several seeds have one curve each.
        kind: ``dpo``, ``sft``, ...
        rows: One dict per logged step: ``step``, ``loss``, ``logps/chosen``, ... under TRL's names.
        alarms: What the health checks said: ``{"step": int | None, "message": str}``.
    """

    model: str
    kind: str
    rows: Sequence[dict[str, Any]]
    alarms: Sequence[dict[str, Any]] = ()


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
        counts: Rows in, kept, dropped by reason; anything else worth counting.
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
    counts: dict[str, Any] = field(default_factory=dict)
    gpu_seconds: float | None = None
    cost: float | None = None

    @property
    def left_out(self) -> str:
        """What was dropped, cut, or failed, in words: ``too_long 12, cut 3``."""
        dropped = self.counts.get("dropped") or {}
        reasons = dropped if isinstance(dropped, Mapping) else {"dropped": dropped}
        others = {name: count for name, count in self.counts.items() if name != "dropped"}
        return ", ".join(f"{reason} {count:,}" for reason, count in {**reasons, **others}.items() if count)


@dataclass(frozen=True)
class ReportData:
    """Everything that a report shows.

    Attributes:
        title: Name of the study.
        subtitle: One line below it, e.g. run id and date.
        recipe: Text of the resolved recipe.
        results: ``Results.model_dump(mode="json")`` of the evaluation.
        verdict: ``Verdict.to_dict()``; made from ``results`` when it is None.
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
    results: dict[str, Any] | None = None
    verdict: dict[str, Any] | None = None
    pairs: Sequence[PairAudit] = ()
    curves: Sequence[TrainingCurve] = ()
    samples: Sequence[Sample] = ()
    samples_total: int | None = None
    steps: Sequence[StepCost] = ()
    versions: dict[str, str] = field(default_factory=dict)
    warnings: Sequence[str] = ()

    def to_json(self) -> dict[str, Any]:
        """Return everything but the texts of the samples as plain values."""
        whole = asdict(replace(self, samples=(), pairs=()))
        return {**whole, "samples": len(self.samples), "pairs": [audit.to_json() for audit in self.pairs]}
