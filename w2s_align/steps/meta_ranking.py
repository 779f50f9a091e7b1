"""meta_ranking: a model scores responses by comparing them with responses to other prompts of known correctness.

Reads responses (and the prompts behind them), references with their scores against gold answers, and the model of
another step; writes data/scores.parquet (records.Score), for combine, pair rules and best_of. What the references and
the calibration were is in artifact.json.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.identity import model_name
from w2s_align.errors import UserError
from w2s_align.generation.settings import Engine, Sampling
from w2s_align.recipe.schema import ArtifactType, Reads, ResponsesRef, ScoresRef
from w2s_align.scoring.meta_ranking import MetaRankingSettings
from w2s_align.steps.asking import AskingStep
from w2s_align.steps.generate import GenerateResources
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.scoring.meta_ranking import Item, Known

SHORT = Sampling(temperature=0, max_tokens=16)
"""Greedy, and room for one verdict without reasons: a response takes two questions for each reference."""


class MetaRanking(AskingStep, MetaRankingSettings):
    """Let a weak model say which responses are right, beside responses to other prompts of known correctness."""

    kind: Literal["meta_ranking"] = "meta_ranking"
    model: Annotated[str, Reads(("model",), literal=True, named=True)]
    """The model that compares: a hub id, a folder, or $step."""
    responses: ResponsesRef
    """What is scored."""
    known: ResponsesRef
    """Responses of known correctness, from which references and calibration are drawn with the seed. They may be
    among those that are scored: a response is never compared with one to its own prompt."""
    gold: ScoresRef
    """Scores of the known responses against gold answers: above 0.5 is right."""
    sampling: Sampling = SHORT
    """How the model's tokens are drawn. Default: greedy, 16 tokens."""
    engine: Engine = Engine()
    """Engine, number format, context of the model; {name: openai} asks a server."""
    resources: GenerateResources = GenerateResources()
    """What the step may use of the machine; changes nothing in what it writes."""

    writes: ClassVar[ArtifactType] = "scores"

    def check(self) -> None:
        """Refuse a template that hides something, several draws, and what a generation would refuse."""
        self.check_template()
        if self.sampling.n > 1:
            raise UserError(f"sampling.n is {self.sampling.n}: every comparison is asked once.", fix="n: 1")
        super().check()

    def identity(self) -> dict[str, Any]:
        """Return the engine with its version, the content of a model that no step made, and what it is asked."""
        return super().identity() | {"template": hashlib.sha256(self.text.encode()).hexdigest()[:16]}

    def run(self, work: Work) -> None:
        """Compare, going on from the answers that an earlier try got, and score."""
        import numpy as np

        from w2s_align.scoring.meta_ranking import UNREADABLE, calibrate, compare, draw_known, meta_scores

        settings = MetaRankingSettings.model_validate(self.model_dump(include=set(MetaRankingSettings.model_fields)))
        references, rest = draw_known(self._known(work), settings, self.seed or 0)
        rows, targets = _items(work.inputs["responses"])
        outcomes = compare([*targets, *rest], references, lambda asked: self._ask(work, asked), self.text)
        kinds = np.array([one.right for one in references], np.float64)
        own, held = outcomes[: len(targets)], outcomes[len(targets) :]
        calibration = None
        if rest:
            calibration = calibrate(held, kinds, np.array([one.right for one in rest], np.float64), self.prior)
            work.result["calibration"] = calibration.to_json()
        values = meta_scores(own, kinds, calibration).tolist()
        scores = _scores(work.inputs["responses"].table(), rows, values, f"meta_ranking:{self._name(work)}")
        work.write(scores.table, "scores")
        work.counts.update(rows_in=scores.table.num_rows, kept=scores.scored, dropped=scores.unscored)
        unreadable = float((own == UNREADABLE).mean()) if own.size else 0.0
        work.result.update(mean=scores.mean, references=[one.prompt_id for one in references], unreadable=unreadable)
        work.result["undecided"] = float((own == 0).mean()) if own.size else 0.0
        if unreadable > 0.1:
            work.warnings.append(f"{100 * unreadable:.0f}% of the comparisons could not be read in both orders.")
        if work.result["undecided"] > 0.6:
            share = 100 * work.result["undecided"]
            work.warnings.append(
                f"In {share:.0f}% of the comparisons the two orders disagree or tie: they say nothing."
            )
        shutil.rmtree(work.out / "asked", ignore_errors=True)

    def _name(self, work: Work) -> str:
        return work.sources.get("model", model_name(self.model))

    def _ask(self, work: Work, questions: Sequence[str]) -> list[str | None]:
        """Generate an answer to every question."""
        from w2s_align.generation import generate
        from w2s_align.records import Prompt, to_table

        prompts = [Prompt.of(question) for question in questions]
        generation = generate(
            work.model("model", self.model),
            to_table(prompts, Prompt),
            **self.ways(work),
        )
        account = generation.to_json()
        work.warnings += account.pop("warnings")
        work.result["asked"] = {name: account[name] for name in ("prompts", "prompt_tokens", "completion_tokens")}
        given: dict[str, str | None] = {}
        for batch in generation.batches():
            given |= dict(zip(batch["prompt_id"].to_pylist(), batch["text"].to_pylist(), strict=True))
        return [given.get(prompt.id) for prompt in prompts]

    def _known(self, work: Work) -> list[Known]:
        """Return the responses of known correctness."""
        from w2s_align.scoring.meta_ranking import Known

        gold = work.inputs["gold"].table()
        keys = (gold[name].to_pylist() for name in ("prompt_id", "model", "sample"))
        values = dict(zip(zip(*keys, strict=True), gold["value"].to_pylist(), strict=True))
        rows, items = _items(work.inputs["known"])
        table = work.inputs["known"].table().take(rows)
        keys = (table[name].to_pylist() for name in ("prompt_id", "model", "sample"))
        return [
            Known(item.prompt_id, item.prompt, item.response, values[key] > 0.5)
            for item, key in zip(items, zip(*keys, strict=True), strict=True)
            if values.get(key) is not None
        ]


def _items(responses: Artifact) -> tuple[list[int], list[Item]]:
    """Return the rows of the responses that can be compared, and what they are."""
    from w2s_align.scoring.judge_prompts import as_text
    from w2s_align.scoring.meta_ranking import Item
    from w2s_align.scoring.thoughts import answer_part

    prompts = responses.prompts().table()
    asked = dict(zip(prompts["id"].to_pylist(), map(as_text, prompts["messages"].to_pylist()), strict=True))
    table = responses.table()
    columns = (table[name].to_pylist() for name in ("prompt_id", "text", "finish_reason"))
    rows, items = [], []
    for row, (prompt_id, text, finish) in enumerate(zip(*columns, strict=True)):
        if text is not None and finish != "error" and prompt_id in asked:
            rows.append(row)
            items.append(Item(prompt_id, asked[prompt_id], answer_part(text)))
    return rows, items


def _scores(table: pa.Table, rows: list[int], values: Sequence[float], scorer: str) -> Any:
    """Return scores of all responses; those that could not be compared have none."""
    from w2s_align.scoring.scorer import Assessment, Outcome, score_table, unscored
    from w2s_align.scoring.table import summarize

    found = [unscored(Outcome.NO_RESPONSE)] * table.num_rows
    for row, value in zip(rows, values, strict=True):
        found[row] = unscored("no comparison could be read") if value != value else Assessment(float(value))
    return summarize(score_table(table, scorer, found))
