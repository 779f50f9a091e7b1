"""What a training run is told: optimiser, schedule, batch, lengths, loss, adapter.

The names are those of TRL and transformers. All of these change the trained weights; what does not, in exact
arithmetic, is in resources.py. The other methods have their settings beside their code (kto.py, reward.py, ...).
Nothing heavy is imported here, so that a recipe is checked in an instant.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from w2s_align.errors import UserError, did_you_mean
from w2s_align.records import Settings
from w2s_align.training.renamed import RENAMED

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
"""Every ``loss_type`` of TRL 1.16's DPO trainer (spec: delta_learning 8.3)."""

NORMALISED_LOSSES = frozenset({"sigmoid_norm", "ipo"})
"""Losses over log-ratios per token, where a useful beta is 10 to 100 times that of a summed loss."""

BATCH_SORTED_LOSSES = frozenset({"aot", "aot_unpaired"})
"""Losses that sort log-ratios within one forward pass, so that the micro batch is part of the method."""

DIFFERENCE_LOSSES = frozenset({"sigmoid", "sigmoid_norm", "hinge", "ipo", "exo_pair", "robust", "discopop", "sft"})
"""Losses for which TRL accepts another f-divergence than reverse KL."""

SCHEDULERS = (
    "linear",
    "cosine",
    "cosine_with_restarts",
    "polynomial",
    "constant",
    "constant_with_warmup",
    "inverse_sqrt",
    "cosine_with_min_lr",
    "cosine_warmup_with_min_lr",
    "warmup_stable_decay",
)
"""Learning-rate schedules of transformers that need no evaluation during training."""


def one_of(value: str, names: Sequence[str], what: str) -> str:
    """Return ``value`` if it is one of ``names``.

    Raises:
        ValueError: It is not; the message names the closest match.
    """
    if value in names:
        return value
    raise ValueError(f"{value!r} is not a {what}. {did_you_mean(value, names)} Known: {', '.join(names)}.")


class Lora(Settings):
    """A low-rank adapter (LoRA, arXiv 2106.09685). It is trained alone, then merged into the full-precision base."""

    r: int = Field(64, gt=0)
    """Rank of the update."""
    alpha: float = Field(128.0, gt=0)
    """The update is scaled by alpha / r (by alpha / sqrt(r) with use_rslora)."""
    dropout: float = Field(0.0, ge=0, lt=1)
    """Dropout before the adapter. TRL's DPO switches every dropout off unless disable_dropout is false."""
    target_modules: str | list[str] = "all-linear"
    """Which layers: all-linear (every linear layer but the output head), a regular expression, or names."""
    use_rslora: bool = False
    """Rank-stabilised scaling (arXiv 2312.03732)."""
    use_dora: bool = False
    """Weight-decomposed adapter (arXiv 2402.09353)."""
    load_in_4bit: bool = False
    """Hold the frozen base in 4 bits (NF4, double quantisation; QLoRA, arXiv 2305.14314) while training. The trained
    adapter is merged into the full-precision base all the same."""

    @model_validator(mode="after")
    def _head_stays(self) -> Lora:
        names = [self.target_modules] if isinstance(self.target_modules, str) else self.target_modules
        if any(name.rsplit(".", 1)[-1] == "lm_head" for name in names):
            raise ValueError(
                "an adapter on lm_head would not be trained: TRL reads the head's weight without it. Leave it out."
            )
        return self


class QuickTask(Settings):
    """A few problems that the model in training answers greedily, to see whether it becomes better at them."""

    prompts: str
    """Problems with their gold answers: $step, or from Python a Parquet file of prompts. They must be none of those
    that the final evaluation asks: what a training is stopped by is no test of it."""
    scorer: str = "auto"
    """Name of the scorer that checks an answer: numeric, math, choice, code, ... (`w2s steps score` lists them)."""
    limit: int = Field(100, gt=0)
    """The first so many problems."""
    max_tokens: int = Field(512, gt=0)
    """Longest answer, in tokens; answers that are cut are counted, and checked as they are."""


class TrainSettings(Settings):
    """What every kind of training takes. The names are those of transformers' TrainingArguments."""

    learning_rate: float = Field(gt=0)
    """Peak learning rate. It has no default: a wrong one is the most frequent reason why a training shows nothing."""
    num_train_epochs: float = Field(1.0, gt=0)
    """Passes over the data."""
    max_steps: int | None = Field(None, gt=0)
    """Optimiser steps; replaces num_train_epochs."""
    batch_size: int = Field(32, gt=0)
    """Rows (pairs, for preferences) per optimiser step over all devices and micro batches: the effective batch."""
    lr_scheduler_type: str = "cosine_with_min_lr"
    """Schedule of the learning rate, by its name in transformers."""
    lr_scheduler_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the schedule; cosine_with_min_lr gets min_lr_rate 0.1 when nothing is said."""
    warmup_steps: float = Field(0.03, ge=0)
    """Steps of linear warm-up; a number below 1 is a share of all steps, rounded up."""
    weight_decay: float = Field(0.0, ge=0)
    """AdamW's decoupled weight decay."""
    adam_beta1: float = Field(0.9, ge=0, lt=1)
    """Decay of AdamW's first moment."""
    adam_beta2: float = Field(0.95, ge=0, lt=1)
    """Decay of AdamW's second moment."""
    adam_epsilon: float = Field(1e-8, gt=0)
    """AdamW's epsilon."""
    max_grad_norm: float = Field(1.0, ge=0)
    """The gradient is scaled down to this norm; 0 turns it off."""
    max_length: int | None = Field(2048, gt=1)
    """Longest prompt + response in the student's tokens; null for no limit."""
    too_long: Literal["drop", "truncate", "error"] = "drop"
    """What happens to a longer row: drop it, cut the end of its response (which loses its end-of-turn), or stop.
    Rows are counted by side. A row whose prompt alone fills max_length is always dropped, or an error."""
    template_check: Literal["error", "warn"] = "error"
    """What happens when the student's chat template renders a prompt differently alone than with its answer, doubles
    the BOS token, or does not end an answer with exactly one end-of-turn."""
    chat_template_kwargs: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the student's chat template, e.g. {enable_thinking: false}."""
    adapter: Lora | None = None
    """Train a low-rank adapter in place of all parameters."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the arithmetic: auto is bfloat16 on an accelerator that has it, else float32. The trained weights
    and the optimiser are float32 in every case, so that small learning rates still move them."""
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the saved model; auto is the one that the start model is stored in."""
    held_out: float = Field(0.0, ge=0)
    """Rows that are not trained on but measured: a number of rows, or a share below 1. 0 for none."""
    quick_task: QuickTask | None = None
    """Problems that the model answers during the training, to follow its accuracy: {prompts: $step, limit: 100}."""
    evaluate_every: int | None = Field(None, gt=0)
    """Optimiser steps between two measurements of the held-out loss and of the quick task; by default ten times in a
    training. The quick task is measured before the first step, too."""
    early_stopping: int | None = Field(None, gt=0)
    """Stop when the accuracy on the quick task has not risen for so many measurements or, without a quick task, the
    held-out loss has not fallen; null trains to the end."""
    stop_on_alarm: bool = False
    """Stop at the first alarm about the training's health, and keep no model."""
    trl: dict[str, Any] = Field(default_factory=dict)
    """Any other argument of TRL's configuration class, by TRL's own name."""

    @model_validator(mode="after")
    def _held_out_is_there(self) -> TrainSettings:
        for name in ("early_stopping", "evaluate_every"):
            if getattr(self, name) is not None and not self.held_out and self.quick_task is None:
                raise ValueError(
                    f"{name} needs something to measure: set held_out, e.g. to 0.05, or quick_task: {{prompts: ...}}."
                )
        if self.held_out >= 1 and self.held_out != int(self.held_out):
            raise ValueError(f"held_out {self.held_out:g} is neither a share below 1 nor a number of rows.")
        return self

    @field_validator("trl")
    @classmethod
    def _not_renamed(cls, value: dict[str, Any]) -> dict[str, Any]:
        for name in value:
            if name in RENAMED:
                raise ValueError(f"in trl, {name}: {RENAMED[name]}".removesuffix("."))
        return value

    @field_validator("lr_scheduler_type")
    @classmethod
    def _known_schedule(cls, value: str) -> str:
        return one_of(value, SCHEDULERS, "learning-rate schedule")

    @property
    def scheduler_kwargs(self) -> dict[str, Any]:
        """``lr_scheduler_kwargs`` with the default floor of a cosine schedule that needs one."""
        needs_floor = self.lr_scheduler_type in ("cosine_with_min_lr", "cosine_warmup_with_min_lr")
        if needs_floor and not {"min_lr", "min_lr_rate"} & self.lr_scheduler_kwargs.keys():
            return {**self.lr_scheduler_kwargs, "min_lr_rate": 0.1}
        return dict(self.lr_scheduler_kwargs)

    def advice(self) -> list[str]:
        """Return sentences about settings that are allowed but rarely meant."""
        return []

    @property
    def rows_together(self) -> int | None:
        """Rows that the method needs in one forward pass over all processes, or None when it does not care."""
        return None

    def check_pass(self, micro_batch_size: int, processes: int) -> None:
        """Refuse forward passes that would change the method.

        Raises:
            UserError: With the sizes that do not.
        """


class SFTSettings(TrainSettings):
    """Supervised fine-tuning on responses; the loss counts response tokens only."""

    loss: Literal["nll", "dft"] = "nll"
    """nll: cross entropy. dft: dynamic fine-tuning (arXiv 2508.05629)."""
    side: Literal["chosen", "rejected"] = "chosen"
    """Which side of preference pairs is the response; without effect for other data."""


class DPOSettings(TrainSettings):
    """Direct preference optimisation (arXiv 2305.18290) and its relatives. The reference is the start model."""

    loss: str | list[str] = "sigmoid"
    """Name of the loss, or several names that are summed with loss_weights. sigmoid_norm is the length-normalised
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
    disable_dropout: bool = True
    """Switch off all dropout, the adapter's included, so that policy and reference agree at the start."""

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
        return self

    @property
    def losses(self) -> list[str]:
        """The names in ``loss`` as a list."""
        return [self.loss] if isinstance(self.loss, str) else list(self.loss)

    @property
    def rows_together(self) -> int | None:
        """The whole batch for aot losses, which sort its log-ratios; else None."""
        return self.batch_size if BATCH_SORTED_LOSSES & set(self.losses) else None

    def check_pass(self, micro_batch_size: int, processes: int) -> None:
        """Refuse aot losses over less than the whole batch; several processes would each sort their own part."""
        if self.rows_together and (micro_batch_size != self.batch_size or processes > 1):
            raise UserError(
                f"aot losses sort the pairs of one forward pass, so that micro batches of {micro_batch_size} on "
                f"{processes} processes change the method.",
                fix=f"Set micro_batch_size to batch_size ({self.batch_size}) and use one process.",
            )

    def advice(self) -> list[str]:
        """Return sentences about settings that are allowed but rarely meant."""
        notes = []
        summed = [name for name in self.losses if name not in NORMALISED_LOSSES and name != "sft"]
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
        """Return the loss of a policy that equals its reference (spec: delta_learning 8.3).

        Returns:
            The value, or None where it depends on the data (``sft`` in the list, pair weighting, active dropout).
        """
        if "sft" in self.losses or self.use_weighting or not self.disable_dropout:
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
