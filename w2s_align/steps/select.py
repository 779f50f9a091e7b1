"""select: responses worth training on, by the agreement of two models, a score, or a model's own confidence.

Reads responses (and the prompts behind them), scores where they decide, other selections to be comparable with;
writes data/responses.parquet (records.Response) and dropped.parquet (what was left out, and why). `sft` learns them,
`pair` and `score` read them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, Resources, ResponsesRef, ScoresRef
from w2s_align.responses.degenerate import Degenerate
from w2s_align.steps.step import Step
from w2s_align.steps.tables import join_tables, prompts_behind
from w2s_align.steps.work import Work, in_words

if TYPE_CHECKING:
    from w2s_align.responses.select import Selected

AGREEMENT = ("keep", "answer", "compare", "mark", "pad_to", "truncated")
TAKES: dict[str, tuple[str, ...]] = {
    "agreement": ("other", *AGREEMENT),
    "all": (),
    "correct": ("scores", "right_at", "scorer"),
    "incorrect": ("scores", "right_at", "scorer"),
    "mixed": ("scores", "right_at", "scorer", "wrong_share"),
    "best": ("scores", "scorer"),
    "confidence": ("threshold", "answer", "per_prompt"),
}
"""Options of each way to select."""

NEEDS = {
    "agreement": "other",
    "correct": "scores",
    "incorrect": "scores",
    "best": "scores",
    "mixed": "scores",
}
"""The input that a way to select needs."""
NEW = ("compare", "mark", "wrong_share", "gold", "degenerate", "shared_with", "apart_from", "one_per_prompt", "match")
"""Options that came later: without them, what a step has selected keeps its key."""


class Select(Step):
    """Choose responses to train on."""

    kind: Literal["select"] = "select"
    by: Literal["agreement", "all", "correct", "incorrect", "mixed", "best", "confidence"]
    """agreement: two models give the same final answer (weak-to-strong reasoning, stage I). all: every usable one.
    correct, incorrect: by a score. mixed: one response of every prompt that has right and wrong ones, so that a given
    share is wrong. best: the response of each prompt with the highest score. confidence: the majority answer of
    several samples, where its share is large. Only scores can hold gold."""
    responses: ResponsesRef
    """What is selected from; for agreement, the first of the two models."""
    other: ResponsesRef | None = None
    """The second model's responses to the same prompts (agreement)."""
    keep: Literal["first", "second", "both"] = "first"
    """Whose responses are kept; both gives two rows per prompt (agreement)."""
    compare: Literal["value", "text"] = "value"
    """When answers agree: by value, or only where they are written alike, as in the source (agreement). Both are
    counted."""
    mark: str | None = Field(None, min_length=1)
    """What must stand before a final answer, e.g. "####" (agreement). Default: it is found as by an answer check."""
    pad_to: int = Field(0, ge=0)
    """Where fewer prompts agree, add prompts that disagree, drawn with the seed, up to this number (agreement)."""
    truncated: bool = False
    """Also use responses that were cut at the token limit (agreement)."""
    scores: list[ScoresRef] = []
    """Scores of the responses (correct, incorrect, mixed, best)."""
    scorer: str | None = None
    """Which scorer's scores to use, when scores has several (correct, incorrect, mixed, best)."""
    right_at: float = 1.0
    """A response is right from this score on (correct, incorrect, mixed)."""
    wrong_share: float = Field(0.5, ge=0, le=1)
    """Share of the prompts whose response is wrong; a set with a larger share contains the wrong ones of a smaller
    (mixed)."""
    threshold: float = Field(0.6, gt=0, le=1)
    """Least share of the majority answer among all samples of a prompt (confidence)."""
    per_prompt: int = Field(1, ge=1)
    """At most this many samples of one prompt, drawn with the seed (confidence)."""
    answer: Literal["number", "text"] = "number"
    """What final answers look like (agreement, confidence)."""
    gold: list[ScoresRef] = []
    """Scores against gold answers, for precision and recall alone: the selection is the same without them."""
    degenerate: Degenerate | None = None
    """Drop degenerate traces: without a box, with few different words, or repeating themselves; {} is the published
    rule."""
    shared_with: list[ResponsesRef] = []
    """Keep only prompts of which these steps have a response too."""
    apart_from: list[ResponsesRef] = []
    """Keep only prompts of which none of these steps has a response: what an earlier selection discarded."""
    one_per_prompt: bool = False
    """Keep one response of each prompt, drawn with the seed."""
    match: ResponsesRef | None = None
    """Keep as many responses as this step has, drawn with the seed."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "responses"

    def content(self) -> dict[str, Any]:
        """Leave out newer options that are not used, so that older selections keep their keys."""
        unused = {name for name in NEW if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in super().content().items() if name not in unused}

    def check(self) -> None:
        """Refuse missing inputs, and options that belong to another way to select."""
        needed = NEEDS.get(self.by)
        if needed and not getattr(self, needed):
            raise UserError(f"Selecting by {self.by} needs {needed}.", fix=f"Add {needed}: $step")
        for name in sorted({option for options in TAKES.values() for option in options} - set(TAKES[self.by])):
            if getattr(self, name) != type(self).model_fields[name].default:
                ways = ", ".join(way for way, options in TAKES.items() if name in options)
                raise UserError(f"Selecting by {self.by} does not take {name}.", fix=f"It belongs to {ways}.")

    def run(self, work: Work) -> None:
        """Select, and account for what was left out."""
        import pyarrow.parquet as pq

        selected = self._narrow(work, self._select(work))
        if not selected.table.num_rows:
            raise UserError(
                f"No response is left by {self.by}.",
                why=f"Counts: {in_words(selected.counts.lines())}.",
                fix="Look at the responses with `w2s show`, loosen the options, or give more prompts.",
            )
        if self.match is not None and selected.table.num_rows < (wanted := work.inputs["match"].table().num_rows):
            work.warnings.append(f"Only {selected.table.num_rows} responses where match has {wanted}: all are kept.")
        if self.gold:
            work.result["gold"] = self._found(work, selected)
        work.write(selected.table, "responses")
        pq.write_table(selected.dropped, work.out / "dropped.parquet")
        counts = selected.counts
        work.counts.update(
            rows_in=counts.given["response"],
            kept=selected.table.num_rows,
            # A reason may be one of single responses (cut at the limit) or of prompts with all their responses.
            dropped={f"{unit}s: {why}": n for unit, reasons in counts.dropped.items() for why, n in reasons.items()},
            detail=counts.to_json(),
        )

    def _narrow(self, work: Work, selected: Selected) -> Selected:
        from w2s_align.responses import degenerate_reasons, narrowed, without_reasons

        if self.degenerate is not None:
            selected = without_reasons(selected, degenerate_reasons(selected.table, self.degenerate))
        return narrowed(
            selected,
            shared_with=[work.inputs[f"shared_with.{index}"].table() for index in range(len(self.shared_with))],
            apart_from=[work.inputs[f"apart_from.{index}"].table() for index in range(len(self.apart_from))],
            one_per_prompt=self.one_per_prompt,
            number=work.inputs["match"].table().num_rows if self.match is not None else None,
            seed=self.seed or 0,
        )

    def _found(self, work: Work, selected: Selected) -> dict[str, float | int | None]:
        from w2s_align.responses import precision_and_recall

        gold = join_tables([work.inputs[f"gold.{index}"].table() for index in range(len(self.gold))])
        given = [work.inputs["responses"].table()] if self.keep != "second" else []
        given += [work.inputs["other"].table()] if self.by == "agreement" and self.keep != "first" else []
        return precision_and_recall(selected.table, join_tables(given), gold)

    def _select(self, work: Work) -> Selected:
        from w2s_align.responses import select

        first = work.inputs["responses"]
        if self.by == "agreement":
            second = work.inputs["other"]
            prompts = prompts_behind([first, second])
            options: dict[str, Any] = {name: getattr(self, name) for name in AGREEMENT}
            return select.select_agreeing(first.table(), second.table(), prompts, seed=self.seed or 0, **options)
        prompts = first.prompts().table()
        if self.by == "all":
            return select.select_all(first.table(), prompts)
        if self.by == "confidence":
            options = {name: getattr(self, name) for name in TAKES["confidence"]}
            return select.select_confident(first.table(), prompts, seed=self.seed or 0, **options)
        scores = join_tables([work.inputs[f"scores.{index}"].table() for index in range(len(self.scores))])
        if self.by == "best":
            return select.select_best(first.table(), scores, prompts, scorer=self.scorer, seed=self.seed or 0)
        if self.by == "mixed":
            options = {name: getattr(self, name) for name in ("wrong_share", "right_at", "scorer")}
            return select.select_mixed(first.table(), scores, prompts, seed=self.seed or 0, **options)
        rule = select.select_correct if self.by == "correct" else select.select_incorrect
        return rule(first.table(), scores, prompts, right_at=self.right_at, scorer=self.scorer)
