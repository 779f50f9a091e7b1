"""The proof that what was saved is what was trained.

Reads ``model/`` and its start. Every saved model is opened again from disk: it must load, differ from its start, and
give the logits that the trained model gave in memory.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError
from w2s_align.training.models import StartModel, load_model

if TYPE_CHECKING:
    import torch

TOLERANCE = {"float32": 1e-4, "bfloat16": 0.05, "float16": 0.01}
"""Largest accepted difference of logits, relative to the largest logit, by the dtype of the saved model."""


def probe_logits(model: Any, rows: list[list[int]]) -> list[torch.Tensor]:
    """Return a model's logits in float32 on the CPU for a few token sequences."""
    import torch

    was_training = model.training
    model.eval()
    device = next(model.parameters()).device
    with torch.no_grad():
        logits = [model(input_ids=torch.tensor([row], device=device)).logits[0].float().cpu() for row in rows]
    model.train(was_training)
    return logits


def verify_model(
    folder: Path,
    start: StartModel,
    save_dtype: str,
    rows: list[list[int]],
    trained: list[torch.Tensor],
    *,
    dtype: str = "float32",
    quantized: bool = False,
    seed: int = 0,
) -> dict[str, Any]:
    """Open a saved model again, and compare it with its start and with what was trained.

    Args:
        folder: The saved model.
        start: What it was trained from.
        save_dtype: Name of the dtype it was saved in.
        rows: Token sequences to compare logits on.
        trained: :func:`probe_logits` of the trained model in memory.
        dtype: Precision of the arithmetic that these were computed in.
        quantized: Whether it was trained on a base in 4 bits; its logits then differ from the merged model's by what
            the quantization costs, which is reported and not judged.
        seed: Seed of the training, which a new head of a reward model starts from.

    Returns:
        ``changed_share`` (share of weights that differ from the start's, both in ``save_dtype``), ``max_change``,
        ``logit_error`` (largest difference to the trained model) and ``logit_change`` (largest difference to the
        start), the last two relative to the largest logit.

    Raises:
        UserError: No weight or no output differs from the start, or the saved model is not the one that was trained.
    """
    import torch

    saved = load_model(folder, save_dtype, start.head)
    torch.manual_seed(seed)
    before = start.load(save_dtype)
    share, largest = _difference(saved, before)
    change = _largest_difference(probe_logits(saved, rows), probe_logits(before, rows))
    if not share or not change:
        raise UserError(
            "Training changed no weight of the saved model." if not share else "Training changed no output.",
            f"In {save_dtype} it equals the model that training started from.",
            "Raise learning_rate or the number of steps"
            + ("." if save_dtype == "float32" else ", or set save_dtype: float32, which keeps smaller changes."),
        )
    scale = max(float(logits.abs().max()) for logits in trained)
    error = _largest_difference(probe_logits(saved, rows), trained) / scale
    accepted = max(TOLERANCE[save_dtype], TOLERANCE[dtype])
    if not quantized and not error <= accepted:
        raise UserError(
            "The saved model is not the model that was trained.",
            f"Its logits differ by {error:.2g} of the largest logit; {accepted:g} is accepted for {save_dtype}.",
            "Set save_dtype: float32; if that does not help, please report it as a bug.",
        )
    return {"changed_share": share, "max_change": largest, "logit_error": error, "logit_change": change / scale}


def _difference(model: Any, other: Any) -> tuple[float, float]:
    """Return the share of weights that differ, and the largest difference.

    A difference below a billionth of a tensor's largest weight counts as none: in float32 only a weight that is almost
    zero, as a padding token's are, can move by so little.
    """
    old = dict(other.named_parameters())
    changed, total, largest = 0, 0, 0.0
    for name, weight in model.named_parameters():
        difference = (weight.detach().float() - old[name].detach().float()).abs()
        changed += int((difference > 1e-9 * old[name].detach().float().abs().max()).sum())
        total += weight.numel()
        largest = max(largest, float(difference.max()))
    return changed / total, largest


def _largest_difference(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    return max(float((a - b).abs().max()) for a, b in zip(first, second, strict=True))
