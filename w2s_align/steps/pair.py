"""pair: preference pairs with a known delta, from the responses of a weak and a weaker model, or from scores.

Reads responses (and the prompts behind them), scores where the rule needs them, prompts of evaluation sets to keep
out; writes the files of an artifact of pairs (see pair_files.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.pairing import Control, Filters, Level
from w2s_align.recipe.schema import ArtifactType, Resources, ResponsesRef, ScoresRef
from w2s_align.steps.pair_files import EvaluationRef, evaluation_items, write_pairs
from w2s_align.steps.step import Step
from w2s_align.steps.tables import join_tables, prompts_behind
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.pairing import Pairs

BY_MODEL, BY_SCORE, BY_CONFIDENCE = ("chosen", "rejected"), ("responses", "scores"), ("own", "weak")
READS: dict[str, tuple[str, ...]] = {
    "model_order": BY_MODEL,
    "self_over_weaker": BY_MODEL,
    "score_gap": BY_SCORE,
    "correctness": BY_SCORE,
    "best_worst": BY_SCORE,
    "best_random": BY_SCORE,
    "worst_of_weak": BY_SCORE,
    "max_delta": BY_SCORE,
    "ranked_scores": BY_SCORE,
    "judge": BY_SCORE,
    "self_confidence": BY_CONFIDENCE,
}
"""Which fields name the input of each rule."""

TAKES: dict[str, tuple[str, ...]] = {
    "score_gap": ("margin", "pick", "scorer"),
    "correctness": ("right_at", "scorer"),
    "best_worst": ("margin", "scorer"),
    "best_random": ("scorer",),
    "worst_of_weak": ("margin", "weak_models", "scorer"),
    "max_delta": ("scorer",),
    "ranked_scores": ("levels",),
    "self_confidence": ("keep_at", "reject_at", "answer"),
}
"""Options that only some rules take."""


class PairStep(Step):
    """Build preference pairs by a rule, and say how large and how clean the delta is."""

    kind: Literal["pair"] = "pair"
    rule: Literal[
        "model_order",
        "self_over_weaker",
        "score_gap",
        "correctness",
        "best_worst",
        "best_random",
        "worst_of_weak",
        "max_delta",
        "ranked_scores",
        "judge",
        "self_confidence",
    ]
    """Which model wrote it, from chosen and rejected: model_order (delta learning), self_over_weaker. Which score it
    has, from responses and scores: score_gap, correctness (right over wrong), best_worst (Olmo 3, with weak models
    among the candidates), best_random (Tülu 3), worst_of_weak (over the worst of some models), max_delta (the two
    models that are furthest apart), ranked_scores (several scorers in order of importance, HERON). Which one a
    pairwise judge prefers in both orders, from responses and scores: judge. What the strong model is sure of, from
    own and weak: self_confidence (weak-to-strong reasoning, stage II)."""
    chosen: ResponsesRef | None = None
    """Responses of the better model, for rules by model."""
    rejected: ResponsesRef | None = None
    """Responses of the worse model, for rules by model."""
    responses: list[ResponsesRef] = []
    """Candidates of all models, for rules by score."""
    scores: list[ScoresRef] = []
    """Their scores, for rules by score; for the rule judge, steps of the kind judge with mode: pairwise."""
    own: ResponsesRef | None = None
    """Several samples of the strong model for each prompt (self_confidence; the paper: 10 at temperature 1)."""
    weak: ResponsesRef | None = None
    """One response of the weak model for each prompt (self_confidence)."""
    gold: list[ScoresRef] = []
    """Scores against gold answers, for the audit alone: the pairs are the same without them."""
    margin: float = Field(0.0, ge=0)
    """Least difference of the scores (score_gap, best_worst, worst_of_weak)."""
    pick: Literal["largest", "smallest", "random"] = "largest"
    """Which gap of several to take first (score_gap)."""
    right_at: float = 1.0
    """A response is right from this score on (correctness)."""
    weak_models: list[str] = []
    """Models whose worst response is rejected (worst_of_weak)."""
    scorer: str | None = None
    """Which scorer's scores to use, when scores has several; its name stands in the scores."""
    levels: list[Level] = []
    """Scorers, most important first: the first that differs by more than its margin decides (ranked_scores)."""
    keep_at: float = Field(0.6, gt=0, le=1)
    """Least share of the strong model's majority answer for any pair (self_confidence)."""
    reject_at: float = Field(0.8, gt=0, le=1)
    """Least share of it at which a weak response with another answer is rejected (self_confidence)."""
    answer: Literal["number", "text"] = "number"
    """What final answers look like (self_confidence)."""
    control: Control = "none"
    """reversed: chosen and rejected swapped. tied: both sides of equal quality. shuffled: labels by coin."""
    filters: Filters = Filters()
    """What is dropped."""
    decontaminate: list[EvaluationRef] = []
    """Prompts of evaluation sets: pairs of prompts that contain more than half the words of an item, in runs of 8
    words (the rule of Tülu 3), are dropped."""
    pairs_per_prompt: int = Field(1, ge=1)
    """At most this many pairs of one prompt."""
    licence: str | None = None
    """Licence of the pairs, for the dataset card; the generators' licences decide."""
    generator_licences: dict[str, str] = {}
    """Licence of models that wrote responses, by name, for audit and dataset card. Default: what their cards say."""
    resources: Resources = Resources(gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "pairs"
    version: ClassVar[int] = 2

    def check(self) -> None:
        """Refuse a rule without its inputs, and inputs that the rule does not read."""
        needed = READS[self.rule]
        for name in needed:
            if not getattr(self, name):
                raise UserError(f"The rule {self.rule} needs {name}.", fix=f"Add {name}: $step")
        for name in dict.fromkeys(name for names in READS.values() for name in names):
            if name not in needed and getattr(self, name):
                raise UserError(f"The rule {self.rule} does not read {name}.", fix=f"It reads {' and '.join(needed)}.")
        for name in sorted({option for options in TAKES.values() for option in options}):
            if name not in TAKES.get(self.rule, ()) and getattr(self, name) != type(self).model_fields[name].default:
                rules = ", ".join(rule for rule, options in TAKES.items() if name in options)
                raise UserError(f"The rule {self.rule} does not take {name}.", fix=f"It belongs to {rules}.")
        if self.rule == "ranked_scores" and not self.levels:
            raise UserError(
                "The rule ranked_scores needs levels.",
                fix="levels: [{scorer: exact}, {scorer: judge:rater, margin: 1}]",
            )
        if self.rule == "worst_of_weak" and not self.weak_models:
            raise UserError("The rule worst_of_weak needs weak_models.", fix="weak_models: [<model of the responses>]")
        if self.rule == "self_confidence" and self.keep_at > self.reject_at:
            raise UserError(f"keep_at {self.keep_at:g} is above reject_at {self.reject_at:g}.", fix="Swap them.")

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Build, audit and write the pairs."""
        write_pairs(
            work,
            self._build(work),
            gold=self._scores(work, "gold"),
            licence=self.licence,
            generator_licences=self.generator_licences,
        )

    def _build(self, work: Work) -> Pairs:
        from w2s_align import pairing

        options: dict[str, Any] = {name: getattr(self, name) for name in TAKES.get(self.rule, ())}
        options |= {"filters": self.filters, "control": self.control, "pairs_per_prompt": self.pairs_per_prompt}
        options["seed"] = self.seed or 0
        options["evaluations"] = evaluation_items(work, "decontaminate", len(self.decontaminate))
        rule = pairing.RULES[self.rule]
        if READS[self.rule] != BY_SCORE:
            sides = [work.inputs[name] for name in READS[self.rule]]
            return rule(sides[0].table(), sides[1].table(), prompts_behind(sides), **options)
        sources = [work.inputs[f"responses.{index}"] for index in range(len(self.responses))]
        scores = self._verdicts(work) if self.rule == "judge" else self._scores(work, "scores")
        return rule(join_tables([s.table() for s in sources]), scores, prompts_behind(sources), **options)

    def _scores(self, work: Work, name: str) -> pa.Table | None:
        tables = [work.inputs[f"{name}.{index}"].table() for index in range(len(getattr(self, name)))]
        return join_tables(tables) if tables else None

    def _verdicts(self, work: Work) -> pa.Table:
        """Return the verdicts behind the scores.

        Raises:
            UserError: Scores are not those of a judge.
        """
        tables = []
        for index in range(len(self.scores)):
            place = f"scores.{index}"
            if work.inputs[place].kind != "judge":
                raise UserError(
                    f"The rule judge reads verdicts, and ${work.sources[place]} is a step of the kind "
                    f"{work.inputs[place].kind}.",
                    fix="Name a step of the kind judge with mode: pairwise, or use the rule best_worst.",
                )
            tables.append(work.inputs[place].table("verdicts"))
        return join_tables(tables)
