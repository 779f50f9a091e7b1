"""The arithmetic of fused models; what it is for says fusion.py. Imports torch: import it late."""

from __future__ import annotations

from collections.abc import Sequence

import torch

OUTSIDE = -1e4
"""Logit of tokens that some of the models do not have: never drawn, and finite in a divergence."""


def fused_log_probs(
    anchor: torch.Tensor,
    contrasts: Sequence[tuple[float, torch.Tensor, torch.Tensor]] = (),
    plausibility: float | None = None,
    *,
    remove: bool = False,
) -> torch.Tensor:
    """Return the log-probabilities of a fused target (docs/methods/on_policy.md).

    Args:
        anchor: Logits, [..., vocabulary].
        contrasts: For each alpha, the logits of plus and of minus, of the same shape.
        plausibility: Shift only tokens at least this likely under the anchor, relative to its most likely one.
        remove: Give the other tokens no probability at all, as decoding must; a target of training keeps the anchor's.

    Returns:
        Log-probabilities in float32, of the same shape.
    """
    # Log-probabilities: a constant in one model's logits would else count inside the mask and not outside of it.
    base = anchor.float().log_softmax(-1)
    if not contrasts:
        return base
    delta = torch.zeros_like(base)
    for alpha, plus, minus in contrasts:
        delta += alpha * (plus.float().log_softmax(-1) - minus.float().log_softmax(-1))
    if plausibility is not None:
        implausible = base < base.amax(-1, keepdim=True) + torch.tensor(plausibility).log()
        delta = delta.masked_fill(implausible, OUTSIDE if remove else 0.0)
    return (base + delta).log_softmax(-1)


def token_divergence(
    student: torch.Tensor, target: torch.Tensor, kind: str = "reverse_kl", top_k: int | None = None
) -> torch.Tensor:
    """Return the divergence of each position in nats.

    Args:
        student: Log-probabilities, [..., vocabulary].
        target: Those of the target, of the same shape.
        kind: ``reverse_kl`` is KL(student || target), ``forward_kl`` the other way round, ``jsd`` the Jensen-Shannon
            divergence.
        top_k: Compare only the target's so many most likely tokens, both distributions made to sum to 1 there
            (arXiv 2607.26246).

    Returns:
        [...], differentiable in ``student``.
    """
    if top_k is not None and top_k < target.shape[-1]:
        places = target.topk(top_k, dim=-1).indices
        student = student.gather(-1, places).log_softmax(-1)
        target = target.gather(-1, places).log_softmax(-1)
    if kind == "reverse_kl":
        return (student.exp() * (student - target)).sum(-1)
    if kind == "forward_kl":
        return (target.exp() * (target - student)).sum(-1)
    middle = torch.stack([student, target]).logsumexp(0) - torch.log(torch.tensor(2.0))
    return 0.5 * ((student.exp() * (student - middle)).sum(-1) + (target.exp() * (target - middle)).sum(-1))
