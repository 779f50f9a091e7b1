"""The update of on-policy reverse distillation (OPRD, arXiv 2609.08798, section 3). Imports torch: import it late."""

from __future__ import annotations

import torch


def unit_direction(moved: torch.Tensor, ignored: torch.Tensor | None = None) -> torch.Tensor:
    """Return the unit vector along which training has moved a teacher's logits.

    Args:
        moved: The teacher's logits less those of what it was before, on the support, [..., support].
        ignored: Places that are not part of the support, of the same shape.

    Returns:
        [..., support], with mean 0 over the support; zero where nothing was moved.
    """
    ignored = torch.zeros_like(moved, dtype=torch.bool) if ignored is None else ignored
    count = (~ignored).sum(-1, keepdim=True)
    moved = moved.float().masked_fill(ignored, 0.0)
    centered = (moved - moved.sum(-1, keepdim=True) / count).masked_fill(ignored, 0.0)
    return centered / centered.norm(dim=-1, keepdim=True).clamp(min=1e-12)


def strength(u: torch.Tensor, amount: float, update: int, warmup: int) -> torch.Tensor:
    """Return how strongly the part along the direction is amplified: less at first where it points the other way.

    Args:
        u: Parts of the gradient along the direction, [...].
        amount: Lambda.
        update: Number of this update, from 1.
        warmup: Updates until parts below 0 have full strength.
    """
    share = min(update / warmup, 1.0) if warmup else 1.0
    return torch.where(u >= 0, amount, amount * share)


def oprd_surrogate(
    log_prob: torch.Tensor,
    support_logits: torch.Tensor,
    support_probs: torch.Tensor,
    sampled: torch.Tensor,
    direction: torch.Tensor,
    advantage: torch.Tensor,
    amount: float,
    update: int,
    warmup: int,
) -> torch.Tensor:
    """Return a loss per token whose gradient in the logits is minus the OPRD update.

    The update is ``(I + lambda d d^T) g`` with the verifier's gradient ``g = A (onehot - p)``; d is zero outside the
    support, so that only the logits there are needed besides the sampled token's log-probability.

    Args:
        log_prob: Log-probability of the sampled token, differentiable, [tokens].
        support_logits: The student's logits on the support, differentiable, [tokens, support].
        support_probs: Its probabilities there (of the whole vocabulary), [tokens, support].
        sampled: 1 where the support's token is the sampled one, [tokens, support].
        direction: Of :func:`unit_direction`, [tokens, support].
        advantage: [tokens].
        amount: Lambda.
        update: Number of this update, from 1.
        warmup: See :func:`strength`.
    """
    with torch.no_grad():
        gradient = advantage.unsqueeze(-1) * (sampled - support_probs)
        u = (direction * gradient).sum(-1)
        weight = strength(u, amount, update, warmup) * u
    along = (direction * support_logits).sum(-1)
    return -(advantage * log_prob + weight * along)
