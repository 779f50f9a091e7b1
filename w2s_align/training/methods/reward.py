"""reward: one score for a chat, trained on pairs (Bradley-Terry) by TRL's reward trainer.

Writes a sequence classifier with one label, which the reward scorer opens. A start without a score head gets one with
random weights.

    train("Qwen/Qwen2.5-1.5B-Instruct", "pairs.parquet", "out", RewardModelSettings(learning_rate=1e-5))
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, field_validator

from w2s_align.errors import UserError
from w2s_align.training.arguments import build_config, trainer_arguments
from w2s_align.training.method import Method
from w2s_align.training.models import SCORE_HEAD
from w2s_align.training.pair_terms import Conflict, missing_terms, reward_trainer, with_terms
from w2s_align.training.prepare import prepare_pairs
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.data import TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.plan import TrainingPlan
    from w2s_align.training.tokens import ChatEncoder


class RewardModelSettings(TrainSettings):
    """Loss: -log sigmoid(score of the chosen - score of the rejected), arXiv 2203.02155, equation 1."""

    center_rewards: float | None = Field(None, gt=0)
    """Weight of a term that keeps the mean score at 0 (arXiv 2312.09244, equation 2); 0.01 is usual."""
    pad_token: str | None = None
    """Token that fills up batches. The score is read at the last token that is not this one, so that it must not end a
    turn. Default: the tokenizer's own, or a special token of its vocabulary that is named for padding."""
    disable_dropout: bool = True
    """Switch off all dropout."""
    soft_labels: bool = False
    """Learn the probability that the chosen response is the better one, from the column p_pref of the pairs, in place
    of certain labels: -p log sigmoid(gap) - (1 - p) log sigmoid(-gap)."""
    conflict: Conflict | None = None
    """Pay the model for pairs that it orders against the gold labels: {alpha: 0.5}. For research on deception."""

    @field_validator("conflict")
    @classmethod
    def _writes_nothing(cls, value: Conflict | None) -> Conflict | None:
        if value is not None and value.term == "sft":
            raise ValueError("a reward model writes no responses; use term: reverse")
        return value

    def pair_terms(self, there: Sequence[str]) -> list[str]:
        """Return ``weight`` where the pairs have weights, and what soft labels and a conflict read.

        Raises:
            UserError: The pairs lack one of these.
        """
        if self.soft_labels and "p_pref" not in there:
            raise missing_terms("p_pref", "soft_labels", "Make the pairs by step label_pairs, or leave it out.")
        if self.conflict is not None and "gold_order" not in there:
            raise missing_terms("gold_order", "conflict", "Make the pairs by step label_pairs with gold_order: true.")
        wanted = {"weight": True, "p_pref": self.soft_labels, "gold_order": self.conflict is not None}
        return [name for name, read in wanted.items() if read and name in there]

    @field_validator("quick_task")
    @classmethod
    def _writes_no_answers(cls, value: object) -> None:
        if value is not None:
            raise ValueError("a reward model writes no answers; follow held-out pairs: held_out")


def padding_token(tokenizer: Any, wanted: str | None) -> str:
    """Return the token that may fill up the batches of a reward model.

    Args:
        tokenizer: The start model's tokenizer.
        wanted: The token that the user names, or None.

    Raises:
        UserError: There is none, or it ends turns: the score would be read at the wrong place.
    """
    vocabulary = tokenizer.get_vocab()
    named = [t for t in tokenizer.get_added_vocab() if "pad" in t.lower()]
    candidates = [wanted] if wanted else [tokenizer.pad_token, *named]
    for token in candidates:
        if token is not None and token in vocabulary and token != tokenizer.eos_token:
            return str(token)
    found = wanted or tokenizer.pad_token
    raise UserError(
        f"The tokenizer has no token for padding{f' but {found!r}, which is its EOS' if found in vocabulary else ''}.",
        "A reward model's score is read at the last token that is no padding: an EOS would be passed over.",
        "Set pad_token to a special token of its vocabulary that no chat contains.",
    )


def _prepare(
    pairs: Rows, encoder: ChatEncoder, settings: RewardModelSettings, folder: Path, seed: int
) -> TrainingData:
    # The tokenizer is the start model's own object: the saved model tells its padding token by it.
    encoder.tokenizer.pad_token = padding_token(encoder.tokenizer, settings.pad_token)
    return prepare_pairs(pairs, encoder, settings, folder, tokens=True)


def _trainer(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    from trl import RewardConfig, RewardTrainer
    from trl.trainer.reward_trainer import DataCollatorForPreference

    settings = plan.settings
    assert isinstance(settings, RewardModelSettings)
    arguments = trainer_arguments(plan, callbacks)
    for tokenizer in (arguments["processing_class"], plan.start.tokenizer):
        tokenizer.pad_token = padding_token(tokenizer, settings.pad_token)
    config = build_config(
        RewardConfig,
        plan,
        center_rewards_coefficient=settings.center_rewards,
        disable_dropout=settings.disable_dropout,
        **({"remove_unused_columns": False} if plan.pair_terms else {}),
    )
    rows, held_out = plan.split()
    if not plan.pair_terms:
        return RewardTrainer(args=config, train_dataset=rows, eval_dataset=held_out, **arguments)
    pad = arguments["processing_class"].pad_token_id
    collator = with_terms(DataCollatorForPreference(pad_token_id=pad))
    trainer = reward_trainer()(
        args=config, train_dataset=rows, eval_dataset=held_out, data_collator=collator, **arguments
    )
    trainer.conflict = settings.conflict
    return trainer


METHODS = (
    Method(
        name="reward",
        title="reward modeling",
        summary="Train a reward model: one score for a chat, higher for the chosen response.",
        settings=RewardModelSettings,
        prepare=_prepare,
        trainer=_trainer,
        head=SCORE_HEAD,
        logits="none",
    ),
)
