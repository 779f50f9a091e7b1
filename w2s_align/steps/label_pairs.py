"""label_pairs: weak labels of pairs. The response that a weak model scores higher becomes the chosen one.

Reads pairs and their scores (step score_pairs); writes the files of an artifact of pairs (see pair_files.py). Which
response the data call chosen is not read: with swapped or deleted gold labels the same bytes come out.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.pairing.weights import Weights
from w2s_align.recipe.schema import ArtifactType, PairsRef, Resources, ScoresRef
from w2s_align.steps.pair_files import write_pairs
from w2s_align.steps.score_pairs import fitted_temperature
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class LabelPairs(Step):
    """Label pairs by the scores of a weak model: its order, how sure it is, and what each pair weighs."""

    kind: Literal["label_pairs"] = "label_pairs"
    pairs: PairsRef
    """What is labeled: the second half."""
    scores: ScoresRef
    """Scores of these pairs: $step of kind score_pairs. Pairs that it left out are left out here, too."""
    temperature: float = Field(1.0, gt=0)
    """What differences of scores are divided by before their sigmoid is a probability. Summed log-probabilities need a
    large one; public code takes 50."""
    fit_pairs: PairsRef | None = None
    """Pairs with gold labels on which the temperature is fitted instead, with fit_scores: of the first half, and not
    those that taught the model."""
    fit_scores: ScoresRef | None = None
    """Scores of fit_pairs by the same model."""
    least_confidence: float = Field(0.5, ge=0.5, lt=1)
    """Keep pairs whose label is at least so probable. It reads the label alone, not whether it is right."""
    weights: Weights = "none"
    """What each pair weighs in the loss. confidence: 2 (p - 1/2) of the label's probability p, as CW-PO does (arXiv
    2603.04968)."""
    gold_order: bool = False
    """Keep whether the label agrees with the gold label, in a column: a simulated conflict of dpo, simpo or reward
    reads it. A device of research; nothing else reads gold labels."""
    license: str | None = None
    """License of the pairs, for the dataset card."""
    generator_licenses: dict[str, str] = {}
    """License of models that wrote responses, by name. Default: what their cards say."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "pairs"
    uses_seed: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    def check(self) -> None:
        """Refuse half of what a temperature is fitted on, two temperatures, and weights that do not fit.

        Raises:
            UserError: See above.
        """
        if (self.fit_pairs is None) != (self.fit_scores is None):
            raise UserError("fit_pairs and fit_scores belong together.", fix="Give both, or neither.")
        if self.fit_pairs is not None and self.temperature != 1.0:
            raise UserError("temperature is given, and fitted on fit_pairs.", fix="Leave one of the two out.")
        if self.weights == "preference":
            raise UserError(
                "weights: preference takes probabilities of being right.", fix="Use weights: confidence, or none."
            )

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Label, audit and write the pairs."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from w2s_align.pairing.weak_labels import label_pairs, sides_of, without

        source = work.inputs["pairs"]
        pairs, scores = source.table(), work.inputs["scores"].table()
        lengths = pq.read_table(source.path / "lengths.parquet")
        left_out = set(sides_of(pairs).ids) - set(scores["prompt_id"].to_pylist())
        own = left_out if work.inputs["scores"].manifest["counts"].get("dropped", {}).get("trained_on") else set()
        if own:
            rows = pa.array(range(pairs.num_rows))
            kept, _ = without(pairs.append_column("row", rows), own)
            lengths, pairs = lengths.take(kept["row"]), kept.drop_columns("row")
        temperature = self._temperature(work)
        labeled = label_pairs(
            pairs,
            scores,
            temperature=temperature,
            least_confidence=self.least_confidence,
            weights=self.weights,
            gold_order=self.gold_order,
            lengths=lengths,
        )
        write_pairs(work, labeled, license=self.license, generator_licenses=self.generator_licenses)
        work.result["temperature"] = temperature
        if own:
            work.counts["rows_in"] += len(own)
            work.counts["dropped"]["pairs that the model was trained on"] = len(own)
        work.counts["dropped"] |= labeled.counts.dropped.get("pair", {})

    def _temperature(self, work: Work) -> float:
        if self.fit_pairs is None:
            return self.temperature
        return fitted_temperature(work.inputs["fit_pairs"].table(), work.inputs["fit_scores"].table())
