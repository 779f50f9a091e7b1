"""Preference tuning without a reference: SimPO, CPO and ORPO, by TRL's experimental trainers.

Reads a start model and preference pairs; writes what :mod:`w2s_align.training.loop` describes.

    train_reference_free("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out", SimPOSettings(learning_rate=1e-6))
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from pydantic import Field, model_validator

from w2s_align.training.methods.catalogue import Method
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from datasets import Dataset

    from w2s_align.training.data import TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.health import Health
    from w2s_align.training.job import Job
    from w2s_align.training.loop import Progress
    from w2s_align.training.report import TrainingReport
    from w2s_align.training.resources import TrainResources
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


class ORPOSettings(TrainSettings):
    """Loss: negative log-likelihood of the chosen chat - beta * log sigmoid(log odds ratio); arXiv 2403.07691.

    TRL takes the likelihood over prompt and response together.
    """

    beta: float = Field(0.1, gt=0)
    """Weight of the odds ratio (lambda in the paper)."""
    disable_dropout: bool = True
    """Switch off all dropout, the adapter's included."""


ReferenceFree: TypeAlias = SimPOSettings | CPOSettings | ORPOSettings


def train_reference_free(
    model: str | os.PathLike[str],
    pairs: Rows,
    out: str | os.PathLike[str],
    settings: ReferenceFree,
    *,
    seed: int = 0,
    resources: TrainResources | None = None,
    launch: str = "single",
    progress: Progress | None = None,
) -> TrainingReport:
    """Tune a model on preference pairs without a reference; which method is in the class of the settings.

    The arguments are those of :func:`w2s_align.training.loop.train`; for the pairs see
    :func:`w2s_align.training.data.prepare_pairs`.

    Raises:
        UserError: Model, data or settings cannot work, or the training failed its checks.
    """
    from w2s_align.training.loop import train

    method = next(method for method in METHODS.values() if type(settings) is method.settings)
    return train(method, model, pairs, out, settings, seed=seed, resources=resources, launch=launch, progress=progress)


def _prepare(pairs: Rows, encoder: ChatEncoder, settings: ReferenceFree, folder: Path, seed: int) -> TrainingData:
    from w2s_align.training.data import prepare_pairs

    return prepare_pairs(pairs, encoder, settings, folder, tokens=True)


def _trainer(job: Job, callbacks: list[Any]) -> Any:
    os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.cpo import CPOConfig, CPOTrainer
    from trl.experimental.orpo import ORPOConfig, ORPOTrainer

    from w2s_align.training.arguments import build_config, pad_id, trainer_arguments

    settings = job.settings
    shared: dict[str, Any] = {
        "beta": settings.beta,  # type: ignore[attr-defined]
        "disable_dropout": settings.disable_dropout,  # type: ignore[attr-defined]
        "remove_unused_columns": False,
        "max_length": job.data.longest,  # null would mean 512; rows were dropped or cut before, and counted
    }
    config: Any
    trainer: Any = CPOTrainer
    if isinstance(settings, ORPOSettings):
        config, trainer = build_config(ORPOConfig, job, **shared), ORPOTrainer
    elif isinstance(settings, SimPOSettings):
        simpo: dict[str, Any] = {
            "loss_type": "simpo",
            "simpo_gamma": settings.margin,
            "cpo_alpha": settings.nll_weight,
        }
        config = build_config(CPOConfig, job, label_smoothing=settings.label_smoothing, **simpo, **shared)
    else:
        assert isinstance(settings, CPOSettings)
        shared |= {"loss_type": settings.loss, "cpo_alpha": settings.nll_weight}
        config = build_config(CPOConfig, job, label_smoothing=settings.label_smoothing, **shared)
    # These trainers load a model wherever there is room, which several processes must not do.
    config.model_init_kwargs.setdefault("device_map", None)
    arguments = trainer_arguments(job, callbacks)
    rows, held_out = job.split()
    return trainer(
        args=config,
        train_dataset=_with_texts(rows),
        eval_dataset=None if held_out is None else _with_texts(held_out),
        data_collator=_Collator(pad_id(arguments["processing_class"])),
        **arguments,
    )


def _with_texts(rows: Dataset) -> Dataset:
    """Add the texts that these trainers insist on tokenising.

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

        batch = {}
        for side in ("chosen", "rejected"):
            ids = [row[f"{side}_ids"] for row in rows]
            labels = [[-100] * row["start"] + row[f"{side}_ids"][row["start"] :] for row in rows]
            width = max(len(tokens) for tokens in ids)
            for name, values, fill in (
                ("input_ids", ids, self.pad),
                ("labels", labels, -100),
                ("attention_mask", [[1] * len(tokens) for tokens in ids], 0),
            ):
                batch[f"{side}_{name}"] = torch.tensor([row + [fill] * (width - len(row)) for row in values])
        return batch


def _health(job: Job) -> Health:
    from w2s_align.training.health import Health

    return Health(exact=job.dtype == "float32")


def _method(name: str, title: str, settings: type[TrainSettings]) -> Method:
    return Method(name, title, settings, sides=2, prepare=_prepare, trainer=_trainer, health=_health)


METHODS = {
    "simpo": _method("simpo", "simple preference optimisation (SimPO)", SimPOSettings),
    "cpo": _method("cpo", "contrastive preference optimisation (CPO)", CPOSettings),
    "orpo": _method("orpo", "odds ratio preference optimisation (ORPO)", ORPOSettings),
}
