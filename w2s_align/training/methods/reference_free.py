"""simpo, cpo, orpo: preference tuning without a reference, by TRL's experimental trainers.

train("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out", SimPOSettings(learning_rate=1e-6))
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from w2s_align.errors import UserError
from w2s_align.training.arguments import build_config, pad_id, trainer_arguments
from w2s_align.training.method import Method
from w2s_align.training.pair_terms import Conflict, collate_terms, cpo_trainer, missing_terms
from w2s_align.training.prepare import prepare_pairs
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset

    from w2s_align.training.data import TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.plan import TrainingPlan
    from w2s_align.training.tokens import ChatEncoder


class SimPOSettings(TrainSettings):
    """Loss: -log sigmoid(beta * (mean log p of the chosen tokens - of the rejected) - margin); arXiv 2405.14734."""

    beta: float = Field(2.0, gt=0)
    """Scale of the reward; the paper uses 2 to 10."""
    margin: float = Field(0.5, ge=0)
    """Gamma: how much larger the chosen reward shall be; the paper uses 0.3 to 1.6, about half of beta at most."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of flipped labels."""
    nll_weight: float = Field(0.0, ge=0)
    """Weight of the negative log-likelihood of the chosen response (CPO-SimPO)."""
    disable_dropout: bool = True
    """Switch off all dropout, the adapter's included."""
    conflict: Conflict | None = None
    """Pay the policy for pairs that it orders against the gold labels, by mean log-probabilities: {alpha: 0.5}. For
    research on deception."""

    def pair_terms(self, there: Sequence[str]) -> list[str]:
        """Return ``weight`` where the pairs have weights, and what a conflict reads.

        Raises:
            UserError: See :func:`_weight_alone`; or the pairs lack gold labels.
        """
        if self.conflict is not None and "gold_order" not in there:
            raise missing_terms("gold_order", "conflict", "Make the pairs by step label_pairs with gold_order: true.")
        return [*_weight_alone(there, self.nll_weight), *(["gold_order"] if self.conflict else [])]


class CPOSettings(TrainSettings):
    """Loss: -log sigmoid(beta * (log p of the chosen response - of the rejected one)) + nll; arXiv 2401.08417."""

    loss: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"
    """How the difference of log-probabilities becomes a loss; ipo takes them per token."""
    beta: float = Field(0.1, gt=0)
    """Scale of the reward."""
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)
    """Share of flipped labels; only for sigmoid."""
    nll_weight: float = Field(1.0, ge=0)
    """Weight of the negative log-likelihood of the chosen response."""
    disable_dropout: bool = True
    """Switch off all dropout, the adapter's included."""

    @model_validator(mode="after")
    def _smooth_sigmoid_only(self) -> CPOSettings:
        if self.label_smoothing and self.loss != "sigmoid":
            raise ValueError(f"label_smoothing has no effect on {self.loss}; use the loss sigmoid.")
        return self

    def pair_terms(self, there: Sequence[str]) -> list[str]:
        """Return ``weight`` where the pairs have weights.

        Raises:
            UserError: See :func:`_weight_alone`.
        """
        return _weight_alone(there, self.nll_weight)


def _weight_alone(there: Sequence[str], nll_weight: float) -> list[str]:
    """Return ``weight`` where the pairs have weights.

    Raises:
        UserError: The loss has a likelihood term, whose mean is over tokens and not over pairs.
    """
    if "weight" in there and nll_weight:
        raise UserError(
            "The pairs carry weights, and nll_weight adds a mean over tokens, which is not a loss of single pairs.",
            fix="Set nll_weight: 0, or use pairs without the column weight.",
        )
    return ["weight"] if "weight" in there else []


class ORPOSettings(TrainSettings):
    """Loss: negative log-likelihood of the chosen chat - beta * log sigmoid(log odds ratio); arXiv 2403.07691.

    TRL takes the likelihood over prompt and response together.
    """

    beta: float = Field(0.1, gt=0)
    """Weight of the odds ratio (lambda in the paper)."""
    disable_dropout: bool = True
    """Switch off all dropout, the adapter's included."""


ReferenceFree: TypeAlias = SimPOSettings | CPOSettings | ORPOSettings
"""Settings of the kinds in this file."""


def _prepare(pairs: Rows, encoder: ChatEncoder, settings: ReferenceFree, folder: Path, seed: int) -> TrainingData:
    data = prepare_pairs(pairs, encoder, settings, folder, tokens=True)
    if data.several_turns and isinstance(settings, ORPOSettings):
        raise UserError(
            f"{data.several_turns:,} pairs have responses of several turns, which orpo cannot learn from.",
            "Its likelihood counts every token of a chat, also what tools and users say.",
            "Use dpo, simpo or cpo, whose loss is on the assistant's turns alone.",
        )
    return data


def _trainer(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    settings = plan.settings
    shared: dict[str, Any] = {
        "beta": settings.beta,  # type: ignore[attr-defined]
        "disable_dropout": settings.disable_dropout,  # type: ignore[attr-defined]
        "remove_unused_columns": False,
        "max_length": plan.data.longest,  # null would mean 512; rows were dropped or cut before, and counted
    }
    config: Any
    trainer: Any = cpo_trainer() if plan.pair_terms else CPOTrainer
    if isinstance(settings, ORPOSettings):
        config, trainer = build_config(ORPOConfig, plan, **shared), ORPOTrainer
    elif isinstance(settings, SimPOSettings):
        simpo: dict[str, Any] = {
            "loss_type": "simpo",
            "simpo_gamma": settings.margin,
            "cpo_alpha": settings.nll_weight,
        }
        config = build_config(CPOConfig, plan, label_smoothing=settings.label_smoothing, **simpo, **shared)
    else:
        assert isinstance(settings, CPOSettings)
        shared |= {"loss_type": settings.loss, "cpo_alpha": settings.nll_weight}
        config = build_config(CPOConfig, plan, label_smoothing=settings.label_smoothing, **shared)
    # These trainers load a model wherever there is room, which several processes must not do.
    if config.model_init_kwargs is not None:
        config.model_init_kwargs.setdefault("device_map", None)
    arguments = trainer_arguments(plan, callbacks)
    rows, held_out = plan.split()
    made = trainer(
        args=config,
        train_dataset=_with_texts(rows),
        eval_dataset=None if held_out is None else _with_texts(held_out),
        data_collator=_Collator(pad_id(arguments["processing_class"])),
        **arguments,
    )
    if plan.pair_terms:
        made.conflict = getattr(settings, "conflict", None)
    return made


def _with_texts(rows: Dataset) -> Dataset:
    """Add the texts that these trainers insist on tokenizing.

    They would render chats as text and add BOS and EOS by rules of their own, e.g. a second EOS after a template that
    ends a turn with a newline. The tokens that were checked are in the rows; the collator takes those.
    """
    for name in ("prompt", "chosen", "rejected"):
        rows = rows.add_column(name, [name] * len(rows))
    return rows


class _Collator:
    """Makes batches of the tokens that were checked, in the form of TRL's own collator for these trainers."""

    def __init__(self, pad: int) -> None:
        self.pad = pad

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        import torch

        batch: dict[str, Any] = collate_terms(rows)
        for side in ("chosen", "rejected"):
            ids = [row[f"{side}_ids"] for row in rows]
            labels = [[-100] * row["start"] + row[f"{side}_ids"][row["start"] :] for row in rows]
            for row, own in zip(rows, labels, strict=True):
                for begin, end in row.get(f"{side}_others") or ():
                    own[begin:end] = [-100] * len(own[begin:end])
            width = max(len(tokens) for tokens in ids)
            for name, values, fill in (
                ("input_ids", ids, self.pad),
                ("labels", labels, -100),
                ("attention_mask", [[1] * len(tokens) for tokens in ids], 0),
            ):
                batch[f"{side}_{name}"] = torch.tensor([row + [fill] * (width - len(row)) for row in values])
        return batch


def _method(name: str, title: str, summary: str, settings: type[ReferenceFree]) -> Method:
    return Method(name, title, summary, settings, prepare=_prepare, trainer=_trainer, logits="whole")


METHODS = (
    _method(
        "simpo",
        "simple preference optimization (SimPO)",
        "Tune a model on preference pairs by mean log-probabilities and a margin, without a reference.",
        SimPOSettings,
    ),
    _method(
        "cpo",
        "contrastive preference optimization (CPO)",
        "Tune a model on preference pairs by log-probabilities and a likelihood term, without a reference.",
        CPOSettings,
    ),
    _method(
        "orpo",
        "odds ratio preference optimization (ORPO)",
        "Tune a model on preference pairs by their odds ratio and a likelihood term, without a reference.",
        ORPOSettings,
    ),
)
