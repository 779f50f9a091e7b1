"""score_pairs: a model scores both responses of each pair, whichever is called chosen.

Reads pairs and a model; writes data/scores.parquet (records.Score): two rows for each pair, under the pair's own id,
in an order that depends on the texts alone. For label_pairs and evaluate_pairs.
"""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, TypeAlias

from pydantic import Field

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.identity import model_identity, model_name
from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, PairsRef, Reads, Resources
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.scoring.scorer import Scorer

ScoredBy: TypeAlias = Literal["reward", "logprob", "logprob_per_token"]
"""What the score of a response is: of a reward model, or a policy's log-probability of it."""


class ScorePairsResources(Resources):
    """What scoring may use of the machine."""

    batch_size: int = Field(8, gt=0)
    """Responses in a forward pass; changes no score."""


class ScorePairs(Step):
    """Score both responses of each pair by a reward model, or by a policy's log-probabilities."""

    kind: Literal["score_pairs"] = "score_pairs"
    model: Annotated[str, Reads(("model",), literal=True, named=True)]
    """The model that scores: $step, a folder, or a hub id."""
    pairs: PairsRef
    """What is scored. Which response is the chosen one is not read."""
    by: ScoredBy = "reward"
    """reward: a reward model. logprob: the log-probability of a response, summed over its tokens, as DPO's public code
    labels by. logprob_per_token: its mean over the tokens, as SimPO compares."""
    reference: Annotated[str, Reads(("model",), literal=True, named=True)] | None = None
    """Of logprob: the model that training started from; the score is then DPO's implicit reward, at beta 1."""
    own_pairs: Literal["drop", "mark", "refuse"] = "drop"
    """What becomes of pairs that the model itself was trained on: drop leaves them out, mark keeps them and says so,
    refuse stops."""
    max_length: int | None = Field(None, ge=1)
    """Longest chat in tokens; a longer one is unscored. Default: what the model was made for."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format; auto is float32 on a CPU, else the model's own."""
    revision: str | None = None
    """Revision of a hub model."""
    resources: ScorePairsResources = ScorePairsResources()
    """What the step may use of the machine. Default: one GPU."""

    writes: ClassVar[ArtifactType] = "scores"
    uses_seed: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    def check(self) -> None:
        """Refuse a reference where none is read.

        Raises:
            UserError: See above.
        """
        if self.reference is not None and self.by == "reward":
            raise UserError("A reward model needs no reference.", fix="Leave reference out, or set by: logprob.")

    def identity(self) -> dict[str, Any]:
        """Return the content of models that no step made."""
        named = {"model": self.model, "reference": self.reference}
        return {
            name: model_identity(model, self.revision if name == "model" else None)
            for name, model in named.items()
            if model is not None and not model.startswith("$")
        }

    def claims(self) -> Resources:
        """Take one GPU, unless the recipe says otherwise."""
        gpus = self.resources.gpus
        return Resources(cpus=self.resources.cpus, gpus=1 if gpus is None else gpus)

    def process(self) -> str | None:
        """Share a process with trainings where there is no GPU memory to give back."""
        return "train"

    def run(self, work: Work) -> None:
        """Score, going on from the batches that an earlier try finished."""
        from w2s_align.pairing.weak_labels import sides_as_responses, sides_of, without
        from w2s_align.scoring import score

        pairs = work.inputs["pairs"].table()
        sides, own = sides_of(pairs), trained_pairs(work.inputs.get("model"))
        trained = len(own.intersection(sides.ids))
        if trained and self.own_pairs == "refuse":
            raise own_pairs_in_test(trained, len(sides.ids), self.model)
        if trained and self.own_pairs == "drop":
            pairs, _ = without(pairs, own)
            sides = sides_of(pairs)
        if not sides.ids:
            raise UserError(
                f"{self.model} has no pair to score.",
                f"Of {work.inputs['pairs'].table().num_rows:,} pairs it was trained on {trained:,}, which are left "
                "out, and the others are not pairs of single responses.",
                "Give it other pairs, or set own_pairs: mark.",
            )
        name = work.sources.get("model", model_name(self.model))
        found = score(
            *sides_as_responses(pairs, sides, name),
            self._scorer(work),
            progress=work.progress,
            folder=work.out / "batches",
            name=f"{self.by}:{name}",
        )
        work.write(found.table, "scores")
        unusable = len(sides.dropped)
        dropped = {"trained_on": trained if self.own_pairs == "drop" else 0, "not_single_responses_or_twice": unusable}
        work.counts.update(
            rows_in=work.inputs["pairs"].table().num_rows,
            kept=len(sides.ids),
            dropped={reason: count for reason, count in dropped.items() if count},
            unscored=found.table["value"].null_count,
        )
        if trained:
            done = "left out" if self.own_pairs == "drop" else "scored all the same"
            work.warnings.append(f"{trained:,} pairs that the model was trained on are {done}.")
        if found.unscored:
            reasons = ", ".join(f"{count} {reason}" for reason, count in found.unscored.items())
            work.warnings.append(f"Responses without a score: {reasons}.")
        shutil.rmtree(work.out / "batches", ignore_errors=True)

    def _scorer(self, work: Work) -> Scorer:
        from w2s_align.scoring.scorers.logprob import LogprobScorer
        from w2s_align.scoring.scorers.reward import RewardScorer

        shared: dict[str, Any] = {
            "model": work.model("model", self.model),
            "revision": self.revision,
            "dtype": self.dtype,
            "max_length": self.max_length,
            "batch_size": self.resources.batch_size,
        }
        if self.by == "reward":
            return RewardScorer(engine="transformers", **shared)
        reference = None if self.reference is None else work.model("reference", self.reference)
        return LogprobScorer(reference=reference, beta=1.0, per_token=self.by == "logprob_per_token", **shared)


def trained_pairs(model: Artifact | None) -> set[str]:
    """Return the ids of all pairs that a model, and those it went on from, were trained on."""
    from w2s_align.pairing.weak_labels import sides_of

    found: set[str] = set()
    while model is not None and model.type == "model":
        inputs = dict(model.inputs())
        for place, artifact in inputs.items():
            if place.partition(".")[0] in ("pairs", "data") and artifact.type == "pairs":
                found.update(sides_of(artifact.table()).ids)
        model = inputs.get("model")
    return found


def fitted_temperature(pairs: pa.Table, scores: pa.Table) -> float:
    """Return what differences of scores are divided by to fit gold labels best.

    Args:
        pairs: Pairs with gold labels: the chosen response is the better one.
        scores: Scores of these pairs.

    Raises:
        UserError: The scores are of other pairs, or there are too few.
    """
    import numpy as np

    from w2s_align.evaluation import fit_temperature
    from w2s_align.pairing.weak_labels import gaps_of, sides_of

    sides = sides_of(pairs)
    gaps, first = gaps_of(sides, scores), ~np.asarray(sides.swapped, dtype=bool)
    known = np.isfinite(gaps)
    if len(set(first[known].tolist())) < 2:
        raise UserError(
            f"A temperature cannot be fitted on {int(known.sum())} scored pairs.",
            fix="Give fit_pairs with some hundred pairs.",
        )
    return fit_temperature(gaps[known], first[known])


def own_pairs_in_test(count: int, total: int, model: str) -> UserError:
    """Return the error about a test that a model was trained on."""
    return UserError(
        f"{count:,} of the {total:,} pairs are pairs that {model} was trained on.",
        "What a model has learned from is no test of it.",
        "Take the test from another split, or keep the halves apart from it: apart_from of step half_pairs.",
    )
