"""dpo: preference tuning by TRL's DPO trainer; pairs in, a tuned model out.

train("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out",
      DPOSettings(loss="sigmoid_norm", beta=5, learning_rate=5e-7))
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from w2s_align.errors import UserError
from w2s_align.training.arguments import build_config, pad_id, trainer_arguments
from w2s_align.training.health import Health
from w2s_align.training.method import Method
from w2s_align.training.models import open_start, weights_digest
from w2s_align.training.padding_free import without_padding
from w2s_align.training.pair_terms import Conflict, dpo_trainer, missing_terms, with_terms
from w2s_align.training.prepare import SIDES, prepare_pairs, silence
from w2s_align.training.reference import Reference
from w2s_align.training.settings import TrainSettings, one_of

if TYPE_CHECKING:
    from w2s_align.training.data import TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.plan import TrainingPlan
    from w2s_align.training.tokens import ChatEncoder

DPO_LOSSES = (
    "sigmoid",
    "sigmoid_norm",
    "hinge",
    "ipo",
    "exo_pair",
    "nca_pair",
    "robust",
    "bco_pair",
    "sppo_hard",
    "aot",
    "aot_unpaired",
    "apo_zero",
    "apo_down",
    "discopop",
    "sft",
)
"""Every ``loss_type`` of TRL 1.16's DPO trainer; formulas in docs/methods/preference_losses.md."""

NORMALIZED_LOSSES = frozenset({"sigmoid_norm", "ipo"})
"""Losses over log-ratios per token, where a useful beta is 10 to 100 times that of a summed loss."""

BATCH_SORTED_LOSSES = frozenset({"aot", "aot_unpaired"})
"""Losses that sort log-ratios within one forward pass, so that the micro batch is part of the method."""

WITHOUT_WEIGHTS = BATCH_SORTED_LOSSES | {"sft", "hinge"}
"""Losses that take no weight of a pair: a mean over sorted ratios or over tokens is not made of single pairs, and TRL
multiplies the output of hinge in place, so that it has no gradient (docs/upstream.md)."""

DIFFERENCE_LOSSES = frozenset({"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"})
"""Losses for which TRL accepts another f-divergence than reverse KL."""


class DPOSettings(TrainSettings):
    """Direct preference optimization (arXiv 2305.18290) and its relatives. The reference is the start model, unless
    another one is named."""

    loss: str | list[str] = "sigmoid"
    """Name of the loss, or several names that are summed with loss_weights. sigmoid_norm is the length-normalized
    loss of delta learning."""
    loss_weights: list[float] | None = None
    """One weight for each name in loss; all 1 when not given."""
    beta: float = Field(0.1, gt=0)
    """Strength of the pull towards the reference: about 0.1 for losses over whole responses, 5 to 10 for
    sigmoid_norm, whose log-ratios are per token."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of flipped labels for robust (below 0.5), epsilon of exo_pair (1e-3), smoothing of aot; ignored by
    sigmoid and sigmoid_norm."""
    f_divergence_type: Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"] = "reverse_kl"
    """Divergence between policy and reference (arXiv 2309.16240)."""
    f_alpha_divergence_coef: float = 0.5
    """Alpha of alpha_divergence."""
    ld_alpha: float | None = Field(None, ge=0, le=1)
    """Weight of the tokens beyond the length that both sides share (LD-DPO, arXiv 2409.06411)."""
    use_weighting: bool = False
    """Weight pairs by the policy's probability of them (WPO, arXiv 2406.11827)."""
    discopop_tau: float = Field(0.05, gt=0)
    """Temperature of discopop (arXiv 2406.08414)."""
    reference: str | None = None
    """Another reference than the start model: a hub id, a folder, or $step of a model with the same tokenizer, e.g.
    the base before a first round of tuning. It takes the memory of its weights."""
    disable_dropout: bool = True
    """Switch off all dropout, the adapter's included, so that policy and reference agree at the start."""
    conflict: Conflict | None = None
    """Pay the policy for pairs that it orders against the gold labels, by log-probabilities without the reference:
    {alpha: 0.5}. For research on deception; it takes the loss sigmoid."""

    @field_validator("loss")
    @classmethod
    def _known_losses(cls, value: str | list[str]) -> str | list[str]:
        if not value:
            raise ValueError("loss is empty; name at least one loss.")
        for name in [value] if isinstance(value, str) else value:
            one_of(name, DPO_LOSSES, "loss of TRL's DPO trainer")
        return value

    @model_validator(mode="after")
    def _possible_together(self) -> DPOSettings:
        names = set(self.losses)
        if self.loss_weights is not None and len(self.loss_weights) != len(self.losses):
            raise ValueError(f"loss has {len(self.losses)} names and loss_weights {len(self.loss_weights)} numbers.")
        if "exo_pair" in names and self.label_smoothing == 0:
            raise ValueError("exo_pair needs label_smoothing above 0; its paper uses 1e-3.")
        if "robust" in names and self.label_smoothing >= 0.5:
            raise ValueError("robust needs label_smoothing below 0.5: the share of flipped labels.")
        if self.f_divergence_type != "reverse_kl" and not names <= DIFFERENCE_LOSSES:
            others = ", ".join(sorted(names - DIFFERENCE_LOSSES))
            raise ValueError(f"{others} has no form for f_divergence_type {self.f_divergence_type}; use reverse_kl.")
        if self.use_weighting and names & BATCH_SORTED_LOSSES:
            raise ValueError("use_weighting cannot be combined with aot losses, which sort the pairs of a batch.")
        if self.use_weighting and "hinge" in names:
            raise ValueError("use_weighting cannot be combined with hinge: TRL's loss has no gradient then.")
        if self.conflict is not None and self.losses != ["sigmoid"]:
            raise ValueError("conflict takes the loss sigmoid alone.")
        return self

    def frozen_models(self) -> dict[str, str | None]:
        """Return a reference that is another model than the start."""
        return {} if self.reference is None else {"reference": self.reference}

    def pair_terms(self, there: Sequence[str]) -> list[str]:
        """Return ``weight`` where the pairs have weights, and what a conflict reads.

        Raises:
            UserError: The loss takes no weights, or the pairs lack gold labels.
        """
        if "weight" in there and (unweighted := WITHOUT_WEIGHTS & set(self.losses)):
            raise UserError(
                f"The pairs carry weights, and the loss {' and '.join(sorted(unweighted))} cannot take them.",
                fix=f"Use one of {', '.join(name for name in DPO_LOSSES if name not in WITHOUT_WEIGHTS)}; or pairs "
                "without the column weight.",
            )
        if self.conflict is not None and "gold_order" not in there:
            raise missing_terms("gold_order", "conflict", "Make the pairs by step label_pairs with gold_order: true.")
        return [name for name in ("weight", "gold_order") if name in there and (name == "weight" or self.conflict)]

    @property
    def losses(self) -> list[str]:
        """The names in ``loss`` as a list."""
        return [self.loss] if isinstance(self.loss, str) else list(self.loss)

    @property
    def rows_together(self) -> int | None:
        """The whole batch for aot losses, which sort its log-ratios; else None."""
        return self.batch_size if BATCH_SORTED_LOSSES & set(self.losses) else None

    def check_micro_batch(self, micro_batch_size: int, processes: int) -> None:
        """Refuse aot losses over less than the whole batch; several processes would each sort their own part.

        Raises:
            UserError: With the sizes that do not change the method.
        """
        if self.rows_together and (micro_batch_size != self.batch_size or processes > 1):
            raise UserError(
                f"aot losses sort the pairs of one forward pass, so that micro batches of {micro_batch_size} on "
                f"{processes} processes change the method.",
                fix=f"Set micro_batch_size to batch_size ({self.batch_size}) and use one process.",
            )

    def advice(self) -> list[str]:
        """Return sentences about settings that are allowed but rarely meant."""
        notes = []
        summed = [name for name in self.losses if name not in NORMALIZED_LOSSES and name != "sft"]
        if "sigmoid_norm" in self.losses and self.beta < 1:
            notes.append(
                f"sigmoid_norm with beta {self.beta:g}: its log-ratios are per token, so that this is far below the "
                "usual strength; published runs use 5 to 10."
            )
        if summed and self.beta > 1:
            notes.append(
                f"{', '.join(summed)} with beta {self.beta:g}: these log-ratios are summed over the response; "
                "published runs use 0.01 to 0.5."
            )
        if self.label_smoothing > 0 and {"sigmoid", "sigmoid_norm"} >= set(self.losses):
            notes.append("label_smoothing has no effect on sigmoid and sigmoid_norm in TRL; use robust.")
        if self.adapter and self.adapter.dropout > 0 and self.disable_dropout:
            notes.append("The adapter's dropout has no effect: disable_dropout switches it off for DPO.")
        return notes

    def start_loss(self) -> float | None:
        """Return the loss of a policy that equals its reference (docs/methods/preference_losses.md).

        Returns:
            The value, or None where it depends on the data (``sft`` in the list, pair weighting, active dropout, a
            reference that is not the start).
        """
        if "sft" in self.losses or self.use_weighting or not self.disable_dropout or self.reference or self.conflict:
            return None
        weights = self.loss_weights or [1.0] * len(self.losses)
        return sum(weight * self._start_value(name) for name, weight in zip(self.losses, weights, strict=True))

    def _start_value(self, name: str) -> float:
        if name in ("sigmoid", "sigmoid_norm", "robust", "aot", "aot_unpaired"):
            return math.log(2)
        if name in ("nca_pair", "bco_pair"):
            return 2 * math.log(2)
        if name in ("hinge", "apo_zero", "apo_down"):
            return 1.0
        if name == "ipo":
            return 1 / (4 * self.beta**2)
        if name == "sppo_hard":
            return 1 / (2 * self.beta**2)
        if name == "discopop":
            return 0.5 * math.log(2) + 0.5
        if name == "exo_pair":
            smoothing = self.label_smoothing
            return 0.5 * math.log(0.5 / (1 - smoothing)) + 0.5 * math.log(0.5 / smoothing)
        raise ValueError(f"no known start value for the loss {name}")


def _prepare(pairs: Rows, encoder: ChatEncoder, settings: DPOSettings, folder: Path, seed: int) -> TrainingData:
    return prepare_pairs(pairs, encoder, settings, folder, ld_alpha=settings.ld_alpha)


def _trainer(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    from trl import DPOConfig, DPOTrainer
    from trl.trainer.dpo_trainer import DataCollatorForPreference

    settings, resources = plan.settings, plan.resources
    assert isinstance(settings, DPOSettings)
    rows, held_out = plan.split()
    arguments = trainer_arguments(plan, callbacks)
    family: dict[str, Any] = {"ld_alpha": settings.ld_alpha}
    if settings.reference is not None:
        arguments["ref_model"] = _other_reference(plan, settings.reference)
        family["reference"] = weights_digest(settings.reference)
    terms = plan.pair_terms
    if terms:
        family["rows"] = plan.data.digest  # TRL names its file after the rows' content, terms included
    reference = Reference.of(plan, family)
    rows, held_out, known = reference.offer(rows, held_out)
    if settings.conflict and not resources.precompute_ref_log_probs:
        raise UserError("conflict reads reference log-probabilities.", fix="Leave precompute_ref_log_probs on.")
    config = build_config(
        DPOConfig,
        plan,
        loss_type=settings.losses,
        loss_weights=settings.loss_weights,
        beta=settings.beta,
        label_smoothing=settings.label_smoothing,
        f_divergence_type=settings.f_divergence_type,
        f_alpha_divergence_coef=settings.f_alpha_divergence_coef,
        ld_alpha=settings.ld_alpha,
        use_weighting=settings.use_weighting or bool(terms),
        discopop_tau=settings.discopop_tau,
        disable_dropout=settings.disable_dropout,
        precompute_ref_log_probs=resources.precompute_ref_log_probs and not known,
        precompute_ref_batch_size=resources.precompute_ref_batch_size,
        **({"remove_unused_columns": False} if plan.data.several_turns or terms else {}),
    )
    collator: Any = None
    if settings.too_long == "truncate" or plan.data.several_turns or terms:
        pad = pad_id(arguments["processing_class"])
        limit = settings.max_length if settings.too_long == "truncate" else None
        collator = DataCollatorForPreference(pad_token_id=pad, max_length=limit)
    if plan.data.several_turns:
        collator = _AssistantOnly(collator)
    trainer_class: Any = DPOTrainer
    if terms:
        trainer_class, collator = dpo_trainer(), with_terms(collator)
    with without_padding("dpo_trainer", pairs=True, on=plan.padded_because is None):
        trainer = trainer_class(
            args=config, train_dataset=rows, eval_dataset=held_out, data_collator=collator, **arguments
        )
    if terms:
        trainer.conflict, trainer.wpo = settings.conflict, settings.use_weighting
    reference.take(trainer)
    return trainer


class _AssistantOnly:
    """Takes the loss off what others say inside responses of several turns.

    TRL's mask covers a response from its first token on; our columns say which parts of it are not the assistant's.
    """

    def __init__(self, pad: Any) -> None:
        self.pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = self.pad(rows)
        # completion_mask: (2 * rows, length), chosen rows first
        spans = [row.get(f"{side}_others") for side in SIDES for row in rows]
        silence(batch["completion_mask"], spans)
        return batch


def _other_reference(plan: TrainingPlan, model: str) -> Any:
    """Load the reference model in the precision of the start.

    Raises:
        UserError: It does not read the same tokens.
    """
    other = open_start(model)
    if other.tokenizer.get_vocab() != plan.start.tokenizer.get_vocab():
        raise UserError(
            f"The reference {model} has another vocabulary than {plan.start.source}.",
            "Both score the same token ids.",
            "Name a model of the same family, or leave reference out.",
        )
    return other.load("float32" if plan.settings.adapter is None else plan.dtype)


def _health(plan: TrainingPlan) -> Health:
    settings = plan.settings
    assert isinstance(settings, DPOSettings)
    lengths = (plan.data.lengths["chosen"]["mean"], plan.data.lengths["rejected"]["mean"])
    return Health(
        start_loss=None if plan.pair_terms else settings.start_loss(),
        beta=settings.beta,
        check_start=settings.disable_dropout and settings.reference is None,
        exact=plan.dtype == "float32" and not (settings.adapter and settings.adapter.load_in_4bit),
        lengths=lengths if NORMALIZED_LOSSES & set(settings.losses) else None,
    )


METHODS = (
    Method(
        name="dpo",
        title="direct preference optimization",
        summary="Tune a model on preference pairs.",
        settings=DPOSettings,
        prepare=_prepare,
        trainer=_trainer,
        health=_health,
        padding_free=True,
        frozen_as_trained=True,
        frozen_passes=1,
    ),
)
