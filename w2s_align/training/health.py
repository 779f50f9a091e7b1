"""Watches a training step by step: stops what cannot work, and collects alarms about what looks wrong.

Reads one row of metrics per optimizer step; an alarm is a plain dict ``{step, kind, message}``, raised once per kind.
The losses at the start are derived in docs/methods/preference_losses.md.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from w2s_align.errors import UserError

Alarm: TypeAlias = dict[str, Any]
"""``step``, ``kind`` and ``message``."""

WINDOW = 20
"""Steps that a running mean or median looks back on: long enough to smooth batches, short enough to stop in time."""
SPIKE = 10.0
"""A gradient norm of so many times the recent median is a spike."""
FALL = 0.05
"""Both log-probabilities falling by this share of their start is an alarm."""
LEFT = 0.01
"""Less than this share of weights that differ in the saved model is an alarm."""


@dataclass
class Health:
    """The rules. Feed it every row of a training, in order.

    Args:
        start_loss: Loss of a policy that equals its reference, or None when it is not known.
        beta: The loss's beta, for preference losses.
        check_start: Whether policy and reference must agree before the first step; not so with active dropout.
        exact: Whether the arithmetic is float32; bfloat16 gets a wider tolerance.
        lengths: Mean tokens of chosen and rejected responses, for losses over log-ratios per token.
        falling: Whether both likelihoods falling is an alarm; they are measured against the reference.
    """

    start_loss: float | None = None
    beta: float | None = None
    check_start: bool = True
    exact: bool = True
    lengths: tuple[float, float] | None = None
    falling: bool = True
    alarms: list[Alarm] = field(default_factory=list)
    _norms: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _rewards: deque[tuple[float, float]] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _first_logps: tuple[float, float] | None = None
    _losses: list[float] = field(default_factory=list)

    def observe(self, row: dict[str, Any]) -> None:
        """Take in the metrics of one step.

        Raises:
            UserError: The loss is not finite, or the first step shows that policy and reference differ.
        """
        step = row["step"]
        for name in ("loss", "grad_norm"):
            if not math.isfinite(row.get(name, 0.0)):
                raise UserError(
                    f"The {name} is {row[name]} at step {step}.",
                    "The training has diverged; the steps after this one would be worthless.",
                    "Lower learning_rate, lengthen warmup_steps, or lower max_grad_norm.",
                )
        if step == 1 and self.beta is not None and self.check_start and "rewards/margins" in row:
            self._check_start(row)
        self._losses.append(row["loss"])
        self._watch_gradient(row)
        if self.beta is not None and self.falling and {"rewards/chosen", "rewards/rejected"} <= row.keys():
            self._watch_likelihoods(row)

    def normalized(self, row: dict[str, Any]) -> dict[str, Any]:
        """Add rewards per token for a loss that is normalized by length.

        TRL logs beta times the summed log-ratio for every loss, which for these is hundreds of times what the loss
        sees. Divided by the mean length of the responses they have its scale.
        """
        if self.lengths is None or "rewards/chosen" not in row:
            return row
        chosen = row["rewards/chosen"] / self.lengths[0]
        rejected = row["rewards/rejected"] / self.lengths[1]
        names = ("rewards_per_token/chosen", "rewards_per_token/rejected", "rewards_per_token/margins")
        return {**row, **dict(zip(names, (chosen, rejected, chosen - rejected), strict=True))}

    def finish(self, step: int) -> None:
        """Judge the whole curve after the last step."""
        tail = self._losses[-max(1, len(self._losses) // 5) :]
        if self.start_loss and step >= 10 and abs(statistics.fmean(tail) / self.start_loss - 1) < 1e-3:
            self.alarm(
                step,
                "no_learning",
                f"The loss stayed at its start value {self.start_loss:.4g}: raise learning_rate, or train more steps.",
            )

    def saved(self, step: int, share: float, dtype: str) -> None:
        """Judge what is left of the training in the saved model.

        Args:
            step: The last step.
            share: Share of its weights that differ from the start's.
            dtype: Precision that both are compared in.
        """
        if share < LEFT:
            self.alarm(
                step,
                "lost_in_saving",
                f"Only {share:.2%} of the saved weights differ from the start's in {dtype}: set save_dtype: float32, "
                "which keeps smaller changes, or raise learning_rate.",
            )

    def alarm(self, step: int, kind: str, message: str) -> None:
        """Note an alarm, once per kind.

        Args:
            step: When it was seen.
            kind: What kind it is.
            message: What was seen, and what to do about it.
        """
        if all(alarm["kind"] != kind for alarm in self.alarms):
            self.alarms.append({"step": step, "kind": kind, "message": message})

    def _check_start(self, row: dict[str, Any]) -> None:
        """Before any update policy and reference are one model: margins are 0 and the loss is a known number."""
        assert self.beta is not None
        relative = 1e-3 if self.exact else 5e-2
        size = abs(row["logps/chosen"]) + abs(row["logps/rejected"])
        allowed = 1e-4 + self.beta * size * (1e-5 if self.exact else 1e-2)
        margin = row["rewards/margins"]
        wrong_loss = self.start_loss is not None and abs(row["loss"] - self.start_loss) > relative * (
            abs(self.start_loss) + (allowed if not self.exact else 0)
        )
        if abs(margin) > allowed or wrong_loss:
            known = "" if self.start_loss is None else f" and loss {self.start_loss:.5g}"
            raise UserError(
                f"Before the first update the margin is {margin:.3g} and the loss {row['loss']:.5g}.",
                f"A policy that starts at its reference has margin 0{known}: the reference log-probabilities belong to"
                " another model, other tokens, or a model with active dropout.",
                "If cache_dir is set, empty it; merge an adapter into its base before training on it.",
            )

    def _watch_gradient(self, row: dict[str, Any]) -> None:
        norm = row.get("grad_norm")
        if norm is None:
            return
        if len(self._norms) == WINDOW and norm > SPIKE * statistics.median(self._norms):
            usual = statistics.median(self._norms)
            self.alarm(
                row["step"],
                "gradient_spike",
                f"Gradient norm {norm:.3g} after a usual {usual:.3g}: look for broken rows, or lower learning_rate.",
            )
        self._norms.append(norm)

    def _watch_likelihoods(self, row: dict[str, Any]) -> None:
        # Rewards are beta times the log-ratio to the reference, so the mix of rows in a batch cancels out.
        assert self.beta is not None
        self._first_logps = self._first_logps or (row["logps/chosen"], row["logps/rejected"])
        self._rewards.append((row["rewards/chosen"] / self.beta, row["rewards/rejected"] / self.beta))
        if len(self._rewards) < WINDOW:
            return
        chosen, rejected = (statistics.fmean(side) for side in zip(*self._rewards, strict=True))
        if chosen < min(-1.0, FALL * self._first_logps[0]) and rejected < min(-1.0, FALL * self._first_logps[1]):
            self.alarm(
                row["step"],
                "both_fall",
                f"Chosen and rejected responses both became less likely ({chosen:.3g} and {rejected:.3g} nats below "
                "the reference): the model moves away from both. Lower learning_rate, train fewer steps, raise beta, "
                "or add sft to loss.",
            )
