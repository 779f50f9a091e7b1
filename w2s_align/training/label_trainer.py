"""transformers' trainer with a loss on labels whose thresholds are over the whole effective batch.

Imports torch and transformers: import it late.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import Trainer

from w2s_align.training.label_losses import BLENDED, OVER_BATCH, LabelLoss, alpha_at

if TYPE_CHECKING:
    from w2s_align.training.methods.classifier import ClassifierSettings


def collate(pad: int) -> Callable[[list[dict[str, Any]]], dict[str, torch.Tensor]]:
    """Return what makes a batch of rows, filled up on the right; an attention mask says where.

    Args:
        pad: Id of the padding token.
    """

    def batch_of(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        ids = [torch.tensor(row["input_ids"]) for row in rows]
        return {
            "input_ids": pad_sequence(ids, batch_first=True, padding_value=pad),
            "attention_mask": pad_sequence([torch.ones_like(row) for row in ids], batch_first=True),
            "labels": torch.tensor([row["labels"] for row in rows], dtype=torch.float32),
        }

    return batch_of


class LabelTrainer(Trainer):
    """Trains on distributions over the classes.

    A threshold needs the student's predictions of the whole effective batch. Where that is made of several micro
    batches they are computed before its first one, without gradients, by the weights that the whole step has. The
    method that gives out a step's micro batches is the one place where they are together.

    Args:
        objective: The loss.
        settings: Schedule of alpha.
        **arguments: For ``transformers.Trainer``.
    """

    def __init__(self, objective: LabelLoss, settings: ClassifierSettings, **arguments: Any) -> None:
        self.objective, self.settings = objective, settings
        self.batch: tuple[torch.Tensor, torch.Tensor] | None = None
        self.agreed, self.seen = torch.zeros(()), 0
        super().__init__(compute_loss_func=self._loss, **arguments)
        self.label_names = ["labels"]

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], torch.Tensor | int | None]:
        """Return the micro batches of a step and the number of their labels' entries, over all processes."""
        samples, number = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.batch = None
        if self.objective.name in OVER_BATCH and len(samples) > 1:
            p = []
            with torch.no_grad(), self.compute_loss_context_manager():
                for inputs in samples:
                    logits = self.model_wrapped(**{k: v for k, v in inputs.items() if k != "labels"}).logits
                    p.append(logits.float().softmax(dim=1))
            self.batch = self._together(torch.cat(p), torch.cat([inputs["labels"] for inputs in samples]))
        return samples, number

    def _together(self, p: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return predictions and labels of all processes."""
        if self.accelerator.num_processes == 1:
            return p, labels
        found: tuple[torch.Tensor, torch.Tensor] = self.accelerator.gather((p, labels.to(p.device)))
        return found

    def _loss(self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None) -> torch.Tensor:
        logits = outputs.logits.float()
        if not torch.is_grad_enabled():  # held-out items: how well their labels are predicted, whatever the loss
            return LabelLoss("xent").rows(logits, labels).mean()
        p = logits.detach().softmax(dim=1)
        batch_p, batch_labels = self.batch or (p, labels)
        if self.objective.name in OVER_BATCH and self.batch is None:
            batch_p, batch_labels = self._together(p, labels)
        targets = self.objective.targets(p, labels, self._alpha(), batch_p=batch_p, batch_labels=batch_labels)
        self.agreed = self.agreed.to(p.device) + (p.argmax(dim=1) == labels.argmax(dim=1)).sum()
        self.seen += len(labels)
        rows = self.objective.rows(logits, targets)
        # The trainer has counted every entry of the labels of the whole step: a row is as many as there are classes.
        number = num_items_in_batch / labels.shape[1] if num_items_in_batch is not None else len(labels)
        return rows.sum() / number

    def _alpha(self) -> float:
        if self.objective.name not in BLENDED:
            return 0.0
        steps, settings = max(1, self.state.max_steps), self.settings
        warmup = settings.alpha_warmup / steps if settings.alpha_warmup >= 1 else settings.alpha_warmup
        return alpha_at(self.state.global_step / steps, settings.alpha, warmup, settings.alpha_schedule)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to a step's metrics how often the student's most probable class is that of the label."""
        if "loss" in logs and self.seen:
            logs["label_agreement"] = float(self.agreed) / self.seen
            self.agreed, self.seen = torch.zeros(()), 0
        super().log(logs, start_time)
