"""sft: supervised fine-tuning on responses by TRL's SFT trainer, from a pretrained model or from random weights.

train("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out", SFTSettings(learning_rate=1e-7))
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from w2s_align.training.arguments import build_config, trainer_arguments
from w2s_align.training.method import Inputs, Method
from w2s_align.training.padding_free import without_padding
from w2s_align.training.prepare import prepare_chats
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.data import TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.plan import TrainingPlan
    from w2s_align.training.tokens import ChatEncoder


class SFTSettings(TrainSettings):
    """Supervised fine-tuning on responses; the loss counts response tokens only."""

    loss: Literal["nll", "dft"] = "nll"
    """nll: cross entropy. dft: dynamic fine-tuning (arXiv 2508.05629)."""
    side: Literal["chosen", "rejected", "both"] = "chosen"
    """Which side of preference pairs is the response; without effect for other data. both: language modeling on the
    texts of comparisons, before anything is learned of which is better (arXiv 2312.09390, the generative step)."""
    turns: Literal["last", "all"] = "last"
    """Which of the assistant's turns of a chat are learned; what the user, the system and tools say never is."""


def _prepare(rows: Rows, encoder: ChatEncoder, settings: SFTSettings, folder: Path, seed: int) -> TrainingData:
    return prepare_chats(rows, encoder, settings, folder, side=settings.side, turns=settings.turns)


def _trainer(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    from trl import SFTConfig, SFTTrainer

    settings = plan.settings
    assert isinstance(settings, SFTSettings)
    rows, held_out = plan.split()
    config = build_config(
        SFTConfig,
        plan,
        loss_type=settings.loss,
        # Rows are tokens with labels already, which also keeps a true EOS trained where pad equals EOS (trl#3091).
        dataset_kwargs={"skip_prepare_dataset": True},
    )
    with without_padding("sft_trainer", pairs=False, on=plan.padded_because is None):
        return SFTTrainer(args=config, train_dataset=rows, eval_dataset=held_out, **trainer_arguments(plan, callbacks))


METHODS = (
    Method(
        name="sft",
        title="supervised fine-tuning",
        summary="Fine-tune a model on the chosen responses of pairs, or on generated responses.",
        settings=SFTSettings,
        prepare=_prepare,
        trainer=_trainer,
        inputs=Inputs(
            "data",
            ("pairs", "responses", "chats"),
            "Preference pairs, of which one side is learned, responses, without those that were cut at their limit, "
            "or chats; of a list of steps, all of their rows together.",
        ),
        sides=1,
        padding_free=True,
    ),
)
