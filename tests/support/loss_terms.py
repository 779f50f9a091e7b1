"""What tests of losses share: log-probabilities from transformers alone, and a trainer away from its start."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch

from w2s_align.training import TrainResources
from w2s_align.training.layout import Layout
from w2s_align.training.methods import all_methods
from w2s_align.training.models import open_start
from w2s_align.training.plan import plan_training
from w2s_align.training.tokens import ChatEncoder


class Logps(NamedTuple):
    """Log-probabilities of the tokens of a response: of the policy and of the reference."""

    policy: list[float]
    reference: list[float]
    sums_of_squares: list[float]
    """Logarithm of the sum of the policy's squared probabilities, at each token."""

    @property
    def r(self) -> float:
        return sum(self.policy) - sum(self.reference)

    @property
    def mean_r(self) -> float:
        return self.r / len(self.policy)


def mean(values: Any) -> float:
    values = list(values)
    return sum(values) / len(values)


def nls(x: float) -> float:
    """-log sigmoid(x)."""
    return max(-x, 0.0) + math.log1p(math.exp(-abs(x)))


def trainer_away_from_its_start(method: str, student: Any, rows: list[Any], out: Any, settings: Any) -> Any:
    """Return TRL's trainer as we make it, its model moved by a fixed step, and its first batch."""
    kind = all_methods()[method]
    start = open_start(student, kind.head)
    data = kind.prepare(rows, ChatEncoder(start.tokenizer, start.stop_ids), settings, out / "cache", 0)
    resources = TrainResources(device="cpu", micro_batch_size=len(rows))
    plan = plan_training(kind, start, data, out, settings, resources, 0, Layout())
    trainer = kind.trainer(plan, [])
    dice = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=dice))
    trainer.model.train()
    return trainer, trainer.data_collator(list(trainer.train_dataset))


def logps(policy: Any, reference: Any, tokenizer: Any, row: Any, side: str) -> Logps:
    start = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=True)["input_ids"]
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([ids])).logits[0].double() for model in (policy, reference)]
    scores = [values.log_softmax(-1) for values in logits]
    places = range(len(start), len(ids))
    found = [[float(score[i - 1, ids[i]]) for i in places] for score in scores]
    return Logps(*found, [float((2 * scores[0][i - 1]).logsumexp(-1)) for i in places])
