"""kto: learning from good and bad responses without pairs (arXiv 2402.01306), by TRL's KTO trainer.

train("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out", KTOSettings(learning_rate=5e-7))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field, model_validator

from w2s_align.errors import UserError
from w2s_align.training.arguments import build_config, pad_id, trainer_arguments
from w2s_align.training.health import Health
from w2s_align.training.method import Inputs, Method
from w2s_align.training.prepare import prepare_labeled, silence
from w2s_align.training.reference import Reference
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.data import TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.plan import TrainingPlan
    from w2s_align.training.tokens import ChatEncoder


class KTOSettings(TrainSettings):
    """Good responses become likelier than the reference has them, bad ones less, around a KL term."""

    loss: Literal["kto", "apo_zero_unpaired"] = "kto"
    """kto (arXiv 2402.01306, equation 7), or apo_zero_unpaired (arXiv 2408.06266), which has no KL term."""
    beta: float = Field(0.1, gt=0)
    """Strength of the pull towards the reference."""
    chosen_weight: float = Field(1.0, ge=0)
    """Weight of good responses. Where there are fewer of them than bad ones, their share times their weight should be
    1 to 1.33 times that of the bad ones."""
    rejected_weight: float = Field(1.0, ge=0)
    """Weight of bad responses."""
    kl_batch: int = Field(8, gt=1)
    """Rows over which the KL term is estimated: those that go through the model at once, over all processes."""
    disable_dropout: bool = True
    """Switch off all dropout, the adapter's included, so that policy and reference agree at the start."""

    @model_validator(mode="after")
    def _possible_together(self) -> KTOSettings:
        if self.held_out:
            raise ValueError(
                "kto reads its rows in a fixed order, of which no part can be held out: leave held_out out."
            )
        if self.rows_together and self.batch_size % self.kl_batch:
            raise ValueError(f"batch_size {self.batch_size} is not a multiple of kl_batch {self.kl_batch}.")
        return self

    @property
    def rows_together(self) -> int | None:
        """``kl_batch``, or None for the loss without a KL term."""
        return self.kl_batch if self.loss == "kto" else None

    def check_micro_batch(self, micro_batch_size: int, processes: int) -> None:
        """Refuse micro batches of another number of rows than the KL term is estimated over.

        Raises:
            UserError: With the sizes that do not change the method.
        """
        if self.rows_together and micro_batch_size * processes != self.kl_batch:
            raise UserError(
                f"kto estimates its KL term over the rows of one forward pass: {processes} processes x "
                f"{micro_batch_size} rows are not kl_batch {self.kl_batch}.",
                "That number is part of the method, so that it does not follow the machine.",
                f"Leave micro_batch_size out, or set kl_batch: {micro_batch_size * processes}.",
            )


def _prepare(rows: Rows, encoder: ChatEncoder, settings: KTOSettings, folder: Path, seed: int) -> TrainingData:
    data = prepare_labeled(rows, encoder, settings, folder, seed=seed, together=settings.rows_together or 1)
    if not {"good", "bad"} <= data.lengths.keys():
        missing = "bad" if "good" in data.lengths else "good"
        data.notes.append(f"There is no {missing} response: the model learns from one side alone.")
    return data


def _trainer(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    from trl import KTOConfig, KTOTrainer
    from trl.trainer.kto_trainer import DataCollatorForUnpairedPreference

    settings, resources = plan.settings, plan.resources
    assert isinstance(settings, KTOSettings)
    arguments = trainer_arguments(plan, callbacks)
    # The order of rows, and with it each row's neighbor, depends on the seed: so do its log-probabilities.
    reference = Reference.of(plan, {"kto": settings.loss == "kto", "rows": plan.data.digest})
    rows, _, known = reference.offer(plan.data.dataset(), None)
    config = build_config(
        KTOConfig,
        plan,
        loss_type=settings.loss,
        beta=settings.beta,
        desirable_weight=settings.chosen_weight,
        undesirable_weight=settings.rejected_weight,
        disable_dropout=settings.disable_dropout,
        precompute_ref_log_probs=resources.precompute_ref_log_probs and not known,
        precompute_ref_batch_size=resources.precompute_ref_batch_size,
        remove_unused_columns=False,
    )
    limit = settings.max_length if settings.too_long == "truncate" else None
    pad = DataCollatorForUnpairedPreference(pad_token_id=pad_id(arguments["processing_class"]), max_length=limit)

    def collate(rows: list[dict[str, Any]]) -> dict[str, Any]:
        # TRL pairs rows with neighbors by the size of a forward pass; ours do not depend on it.
        if settings.loss == "kto":
            rows = [{**row, "KL_completion_ids": row["neighbor_ids"]} for row in rows]
        batch: dict[str, Any] = pad(rows)
        if plan.data.several_turns:
            silence(batch["completion_mask"], [row["others"] for row in rows])
            if settings.loss == "kto":
                shifts = [len(row["prompt_ids"]) for row in rows]
                silence(batch["KL_completion_mask"], [_moved(*found) for found in zip(rows, shifts, strict=True)])
        return batch

    trainer = KTOTrainer(args=config, train_dataset=rows, data_collator=collate, **arguments)
    reference.take(trainer)
    return trainer


def _moved(row: dict[str, Any], shift: int) -> list[tuple[int, int]]:
    """Return what others say in the neighbor's response, which stands after this row's prompt."""
    return [(begin + shift, end + shift) for begin, end in row["neighbor_others"] or ()]


def _health(plan: TrainingPlan) -> Health:
    settings = plan.settings
    assert isinstance(settings, KTOSettings)
    return Health(
        start_loss=start_loss(settings),
        beta=settings.beta,
        check_start=settings.disable_dropout,
        exact=plan.dtype == "float32" and not (settings.adapter and settings.adapter.load_in_4bit),
    )


def start_loss(settings: KTOSettings) -> float | None:
    """Return the loss of a policy that equals its reference: half the weight of a response.

    With unequal weights it depends on the labels of the first batch, and is None.
    """
    same = settings.chosen_weight == settings.rejected_weight
    return 0.5 * settings.chosen_weight if same and settings.disable_dropout else None


METHODS = (
    Method(
        name="kto",
        title="KTO",
        summary="Tune a model on the good and the bad responses of pairs, each by itself.",
        settings=KTOSettings,
        prepare=_prepare,
        trainer=_trainer,
        inputs=Inputs(
            "pairs",
            ("pairs",),
            "Preference pairs, of one step or of several: chosen responses are good, rejected ones bad.",
        ),
        health=_health,
        sides=1,
        rows_per_input=2,  # pairs are taken apart
        shuffled=False,  # the KL term needs each row beside the neighbor that it was given
        frozen_passes=1,
    ),
)
