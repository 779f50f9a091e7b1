"""Losses of a classifier that learns from a weaker one's labels: targets from these and from what the student says.

Every loss is the cross entropy with a target; targets are detached, so that only the cross entropy has a gradient.
Reads and returns tensors, rows x classes; imports torch when it is called. Sources: Burns et al. 2023 (arXiv
2312.09390, equation 1 and appendix A.4), the authors' public code and EleutherAI's. Check values stand in
docs/methods/weak_to_strong_generalization.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    import torch

LossName = Literal["xent", "logconf", "product", "entropy", "window", "kl"]
"""The losses; see :meth:`LabelLoss.targets`."""
OVER_BATCH: tuple[LossName, ...] = ("logconf", "window")
"""Losses with a threshold over the whole effective batch."""
BLENDED: tuple[LossName, ...] = ("logconf", "entropy")
"""Losses whose target is part label, part what the student says itself."""


@dataclass(frozen=True)
class LabelLoss:
    """A loss with its constants.

    Attributes:
        name: Which one.
        student_power: Exponent of the student's prediction, in ``product``.
        label_power: Exponent of the label, in ``product``.
        radius: Half the width of the window around 1/2 in which ``window`` trains; ``median`` takes the median
            distance of the batch's labels from 1/2.
        prior: Share of the second class that the hardened predictions of ``logconf`` have; None takes the mean label
            of the batch, as the public code does.
    """

    name: LossName = "xent"
    student_power: float = 1.0
    label_power: float = 1.0
    radius: float | Literal["median"] = 0.15
    prior: float | None = None

    def targets(
        self,
        p: torch.Tensor,
        labels: torch.Tensor,
        alpha: float = 0.0,
        *,
        batch_p: torch.Tensor | None = None,
        batch_labels: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the targets of some rows of a batch.

        ``xent``, ``kl``: the labels. ``logconf``: (1 - alpha) label + alpha h, h being the student's prediction, made
        hard at :func:`threshold`. ``entropy``: (1 - alpha) label + alpha p. ``product``: in proportion to
        p^student_power label^label_power. ``window``: the label where max p < 1/2 + radius, else zeros, which give a
        row no gradient though it counts in the mean.

        Args:
            p: The student's probabilities of these rows.
            labels: Their labels: distributions over the classes.
            alpha: Weight of the student's own prediction now; see :func:`alpha_at`.
            batch_p: The student's probabilities of the whole effective batch; by default these rows are the batch.
            batch_labels: Its labels.
        """
        import torch

        p, labels = p.detach(), labels.detach()
        batch_p = p if batch_p is None else batch_p.detach()
        batch_labels = labels if batch_labels is None else batch_labels.detach()
        if self.name == "logconf":
            first = p[:, 0] >= threshold(batch_p, batch_labels, self.prior)
            own = torch.stack([first, ~first], dim=1).to(p.dtype)
            return (1 - alpha) * labels + alpha * own
        if self.name == "entropy":
            return (1 - alpha) * labels + alpha * p
        if self.name == "product":
            joint = p**self.student_power * labels**self.label_power
            # Both can be 0 to rounding where student and label contradict each other: nothing is then known.
            total = joint.sum(dim=1, keepdim=True)
            return torch.where(total > 0, joint / total.clamp_min(torch.finfo(p.dtype).tiny), 1 / p.shape[1])
        if self.name == "window":
            radius = (batch_labels[:, 1] - 0.5).abs().median() if self.radius == "median" else self.radius
            return labels * (p.max(dim=1, keepdim=True).values < 0.5 + radius)
        return labels

    def rows(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the loss of every row: cross entropy, for ``kl`` without the entropy of the target.

        Args:
            logits: The student's logits.
            targets: What :meth:`targets` returned.
        """
        import torch

        loss = -(targets * logits.log_softmax(dim=1)).sum(dim=1)
        return loss + torch.special.xlogy(targets, targets).sum(dim=1) if self.name == "kl" else loss


def threshold(p: torch.Tensor, labels: torch.Tensor, prior: float | None = None) -> torch.Tensor:
    """Return the probability of the first class from which on a prediction is made hard to it.

    It is the quantile of the student's probabilities of the first class at the share of the second class, interpolated
    linearly: as large a share of the batch becomes the second class as the labels say there is of it.

    Args:
        p: The student's probabilities of the batch, rows x 2.
        labels: The labels of the batch.
        prior: Share of the second class; None for the mean label.
    """
    import torch

    share = labels[:, 1].mean() if prior is None else torch.tensor(prior, dtype=p.dtype, device=p.device)
    return torch.quantile(p[:, 0], share.to(p.dtype))


def alpha_at(
    progress: float, alpha: float, warmup: float, schedule: Literal["linear", "public_code"] = "linear"
) -> float:
    """Return the weight of the student's own prediction.

    Args:
        progress: Share of the training that is done.
        alpha: The final weight.
        warmup: Share of the training after which it is reached.
        schedule: ``linear`` rises from 0. ``public_code`` does what the authors' code did: alpha times the progress up
            to the end of the warm-up, and then a jump (openai/weak-to-strong, issue 33).
    """
    if progress > warmup or (schedule == "linear" and warmup == 0):
        return alpha
    return alpha * (progress / warmup if schedule == "linear" else progress)
