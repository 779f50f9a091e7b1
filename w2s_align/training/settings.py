"""Settings that every kind of training has: optimizer, schedule, batch, lengths, adapter.

The names are those of TRL and transformers. All of these change the trained weights; what does not, in exact
arithmetic, is in resources.py. Each kind adds its own in ``methods/``. Nothing heavy is imported here, so that a
recipe is checked in an instant.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, field_validator, model_validator

from w2s_align.errors import UserError, did_you_mean
from w2s_align.records import Settings
from w2s_align.training.renamed import RENAMED

if TYPE_CHECKING:
    from w2s_align.training.layout import Layout
    from w2s_align.training.models import Head
    from w2s_align.training.resources import TrainResources

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

    Args:
        value: What the user wrote.
        names: What would be right.
        what: What the names are, for the message.

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
    """Rank-stabilized scaling (arXiv 2312.03732)."""
    use_dora: bool = False
    """Weight-decomposed adapter (arXiv 2402.09353)."""
    load_in_4bit: bool = False
    """Hold the frozen base in 4 bits (NF4, double quantization; QLoRA, arXiv 2305.14314) while training. The trained
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
    """Optimizer steps; replaces num_train_epochs."""
    batch_size: int = Field(32, gt=0)
    """Rows (pairs, for preferences) per optimizer step over all devices and micro batches: the effective batch."""
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
    merge_start: bool = True
    """Merge a start that is an adapter into its base first. false: go on with the adapter itself, whose rank and
    layers stay, on its own base; dpo and kto take the adapter as it started for their reference."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the arithmetic: auto is bfloat16 on an accelerator that has it, else float32. The trained weights
    and the optimizer are float32 in every case, so that small learning rates still move them."""
    save_dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Precision of the saved model; auto is the one that the start model is stored in."""
    held_out: float = Field(0.0, ge=0)
    """Rows that are not trained on but measured: a number of rows, or a share below 1. 0 for none."""
    quick_task: QuickTask | None = None
    """Problems that the model answers during the training, to follow its accuracy: {prompts: $step, limit: 100}."""
    evaluate_every: int | None = Field(None, gt=0)
    """Optimizer steps between two measurements of the held-out loss and of the quick task; by default ten times in a
    training. The quick task is measured before the first step, too."""
    early_stopping: int | None = Field(None, gt=0)
    """Stop when the accuracy on the quick task has not risen for so many measurements or, without a quick task, the
    held-out loss has not fallen; null trains to the end."""
    keep: Literal["last", "best"] = "last"
    """Which weights are saved. last: those of the last step. best: those of the measurement with the lowest held-out
    loss, or with the highest accuracy on the quick task. Held-out rows have the labels that are learned: those of a
    weaker model, where these are; a quick task has gold answers, so that choosing by it is no label-free training."""
    stop_on_alarm: bool = False
    """Stop at the first alarm about the training's health, and keep no model."""
    trl: dict[str, Any] = Field(default_factory=dict)
    """Any other argument of TRL's configuration class, by TRL's own name."""

    @model_validator(mode="after")
    def _held_out_is_there(self) -> TrainSettings:
        given = {"early_stopping": self.early_stopping, "evaluate_every": self.evaluate_every}
        given |= {"keep: best": True if self.keep == "best" else None}
        for name, value in given.items():
            if value is not None and not self.held_out and self.quick_task is None:
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
    def head(self) -> Head | None:
        """What the model ends in, where the settings decide it; None for that of the kind of training."""
        return None

    @property
    def trains_head_alone(self) -> bool:
        """Whether everything but the head stays as it is."""
        return False

    def frozen_models(self) -> dict[str, str | None]:
        """Return the frozen models that are in memory beside the trained one, by the option that names each; None
        stands for a copy of the start."""
        return {}

    @property
    def responses_per_prompt(self) -> int:
        """Times that a row counts in a batch: the responses that the student writes to a prompt."""
        return 1

    @property
    def rows_together(self) -> int | None:
        """Rows that the method needs in one forward pass over all processes, or None when it does not care."""
        return None

    def check_rollouts(self, resources: TrainResources, layout: Layout) -> None:
        """Refuse what cannot write responses with the weights in training.

        Raises:
            UserError: With what to use instead.
        """

    def pair_terms(self, there: Sequence[str]) -> list[str]:
        """Return which further columns of the pairs the loss reads: of weights, soft labels, gold labels.

        Args:
            there: Which of ``records.PAIR_TERMS`` the pairs have.

        Raises:
            UserError: One is missing that an option needs, or one is there that the loss cannot take.
        """
        return []

    def check_micro_batch(self, micro_batch_size: int, processes: int) -> None:
        """Refuse micro batches that would change the method.

        Raises:
            UserError: With the sizes that do not.
        """


def check_goes_on(settings: TrainSettings) -> None:
    """Refuse options of a new adapter where training goes on with one.

    Raises:
        UserError: Both are given.
    """
    if not settings.merge_start and settings.adapter is not None:
        raise UserError(
            "merge_start: false and adapter are given.",
            "Training goes on with the adapter that the start is, whose rank and layers are its own.",
            "Leave one of the two out.",
        )
