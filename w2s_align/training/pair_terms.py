"""What a pair brings to its loss: a weight, a soft label, the gold order of a simulated conflict.

TRL's trainers take the mean of a loss over pairs that all weigh the same. The three classes below read further
columns of the rows and differ from TRL's in the loss alone; trainings whose pairs have no such columns use TRL's.
They stand on what is public there: ``compute_loss`` and its model, ``cpo_loss``, and for DPO ``use_weighting``, which
multiplies each pair's loss by what two outputs of the model say (docs/upstream.md). Everything is per pair and divided
by the number of pairs, so that micro batches, processes and packed passes change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from w2s_align.errors import UserError
from w2s_align.records import PAIR_TERMS, Settings

if TYPE_CHECKING:
    import torch

LEAST_WEIGHT = 1e-30
"""A weight of 0 in DPO, whose weights pass through a logarithm."""


class Conflict(Settings):
    """A conflict that is simulated: the model is paid for each pair that it orders against the gold labels. A device
    of research (arXiv 2406.11431): it needs gold labels, in pairs of step label_pairs with gold_order: true."""

    alpha: float = Field(0.5, gt=0)
    """Weight of the payment."""
    term: Literal["reverse", "sft"] = "reverse"
    """reverse: the same loss with the gold-rejected response as the better one. sft: its negative log-likelihood, per
    token; not for reward models, which write nothing."""


@dataclass(frozen=True)
class Terms:
    """The terms of the pairs of a forward pass; one entry for each pair.

    Attributes:
        weight: What a pair's loss is multiplied by.
        p_pref: Probability that the chosen response is the better one.
        gold_order: 1 where the order is that of the gold labels, 0 where it is the other one, -1 where it is not
            known.
    """

    weight: torch.Tensor
    p_pref: torch.Tensor
    gold_order: torch.Tensor

    @classmethod
    def take(cls, batch: Mapping[str, Any], pairs: int) -> tuple[Terms, dict[str, Any]]:
        """Return the terms of a batch, and the batch without them.

        Args:
            batch: What a collator made.
            pairs: Number of its pairs.
        """
        import torch

        rest = {name: value for name, value in batch.items() if name not in PAIR_TERMS.names}
        device = next(value.device for value in rest.values() if isinstance(value, torch.Tensor))
        ones = torch.ones(pairs, device=device)
        weight, p_pref = (batch.get(name, ones).to(device) for name in ("weight", "p_pref"))
        return cls(weight, p_pref, batch.get("gold_order", -ones.long()).to(device)), rest

    def against_gold(self, gap: torch.Tensor) -> torch.Tensor:
        """Say which pairs a model orders against the gold labels, where these are known.

        Args:
            gap: How much more it prefers the chosen response.
        """
        return ((self.gold_order == 1) & (gap < 0)) | ((self.gold_order == 0) & (gap >= 0))


def stored_terms(row: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
    """Return the terms of a row of data; without a weight it weighs 1, without a probability its order is certain.

    Args:
        row: A pair.
        names: Which terms the training reads.

    Raises:
        UserError: A weight is negative or no number, or a probability is none.
    """
    found: dict[str, Any] = {}
    for name in names:
        value = row.get(name)
        if name == "gold_order":
            found[name] = None if value is None else bool(value)
            continue
        found[name] = 1.0 if value is None else float(value)
        if not 0 <= found[name] < (math.inf if name == "weight" else 1.0 + 1e-9):
            raise UserError(
                f"A pair has the {name} {value}.",
                "A weight is 0 or more, a probability between 0 and 1.",
                f"Correct the column {name}, or remove it.",
            )
    return found


def missing_terms(column: str, option: str, fix: str) -> UserError:
    """Return the error about pairs that lack what an option reads."""
    return UserError(f"{option} reads the column {column}, and the pairs have none.", fix=fix)


def collate_terms(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Return the terms of some rows as tensors, where the rows have them."""
    import torch

    made: dict[str, Any] = {
        name: torch.tensor([float(row[name]) for row in rows]) for name in ("weight", "p_pref") if name in rows[0]
    }
    if "gold_order" in rows[0]:
        known = [-1 if row["gold_order"] is None else int(row["gold_order"]) for row in rows]
        made["gold_order"] = torch.tensor(known)
    return made


def with_terms(collate: Callable[[list[dict[str, Any]]], dict[str, Any]]) -> Callable[..., dict[str, Any]]:
    """Return a collator that adds the terms to what another one makes of the rows."""
    return lambda rows: {**collate(rows), **collate_terms(rows)}


@cache
def dpo_trainer() -> Any:
    """Return TRL's DPO trainer with weights and a conflict; made with ``use_weighting``."""
    from trl import DPOTrainer

    class WeightedDPOTrainer(DPOTrainer):  # type: ignore[misc, unused-ignore]
        """Attributes: ``conflict`` is set once it is made; ``wpo`` says whether WPO's weighting is wanted, too."""

        conflict: Conflict | None = None
        wpo = False

        def compute_ref_log_probs(self, model: Any, inputs: Any) -> Any:
            return super().compute_ref_log_probs(model, Terms.take(inputs, 1)[1])

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            terms, rest = Terms.take(inputs, len(inputs["input_ids"]) // 2)
            policy = _WeighedPolicy(model, terms.weight, self.wpo)
            found = super().compute_loss(policy, rest, return_outputs, num_items_in_batch)
            if self.conflict is None:
                return found
            loss, *outputs = found if return_outputs else (found,)
            loss = loss + self.conflict.alpha * self._paid(policy.log_probs, rest, terms).mean()
            return (loss, *outputs) if return_outputs else loss

        def _paid(self, log_probs: torch.Tensor, rest: Mapping[str, Any], terms: Terms) -> torch.Tensor:
            """Return what each pair is paid for being ordered against gold; ``log_probs`` is (2 * pairs, tokens)."""
            from torch.nn.functional import logsigmoid

            assert self.conflict is not None
            chosen, rejected = log_probs.sum(1).chunk(2)
            wrong = terms.against_gold((chosen - rejected).detach()).float()
            if self.conflict.term == "sft":
                means = log_probs.sum(1) / rest["completion_mask"][:, 1:].sum(1).clamp(min=1)
                likely = dict(zip(("chosen", "rejected"), means.chunk(2), strict=True))
                return -wrong * likely["rejected"].where(terms.gold_order == 1, likely["chosen"])
            gap = (chosen - rejected) - (rest["ref_chosen_logps"] - rest["ref_rejected_logps"])
            return -wrong * logsigmoid(self.beta * gap.where(terms.gold_order == 0, -gap))

    return WeightedDPOTrainer


class _WeighedPolicy:
    """The policy of a loss, whose outputs let TRL's ``use_weighting`` multiply each pair's loss by its weight.

    TRL's factor of a response is exp of the mean over its tokens of ``log_probs - log_sum_sq_probs``. The chosen
    response gets the logarithm of the weight as that difference, the rejected one 0.

    Args:
        model: The model, wrapped for several processes or not.
        weight: Weight of each pair.
        wpo: Whether TRL's own factors stay besides.
    """

    def __init__(self, model: Any, weight: torch.Tensor, wpo: bool) -> None:
        self.model, self.weight, self.wpo = model, weight, wpo
        self.log_probs: Any = None

    def __call__(self, **inputs: Any) -> Any:
        import torch

        outputs = self.model(**inputs)
        if not inputs.get("fused_lm_head"):
            return outputs
        self.log_probs = outputs.log_probs
        logs = torch.cat([self.weight.clamp(min=LEAST_WEIGHT).log(), torch.zeros_like(self.weight)])
        kept = outputs.log_sum_sq_probs if self.wpo else outputs.log_probs.detach()
        outputs.log_sum_sq_probs = kept.float() - logs[:, None]  # (2 * pairs, tokens)
        return outputs


@cache
def cpo_trainer() -> Any:
    """Return TRL's trainer of SimPO and CPO with weights and a conflict."""
    from trl.experimental.cpo import CPOTrainer

    class WeightedCPOTrainer(CPOTrainer):  # type: ignore[misc, unused-ignore]
        """Attributes: ``conflict`` is set once it is made."""

        conflict: Conflict | None = None
        terms: Terms

        def get_batch_loss_metrics(self, model: Any, batch: Any, train_eval: Any = "train") -> Any:
            self.terms, rest = Terms.take(batch, len(batch["chosen_input_ids"]))
            return super().get_batch_loss_metrics(model, rest, train_eval)

        def cpo_loss(self, policy_chosen_logps: Any, policy_rejected_logps: Any) -> Any:
            losses, *rewards = super().cpo_loss(policy_chosen_logps, policy_rejected_logps)
            losses = self.terms.weight * losses
            if self.conflict is not None:
                chosen, rejected, gold = policy_chosen_logps, policy_rejected_logps, self.terms.gold_order == 1
                wrong = self.terms.against_gold((chosen - rejected).detach())
                worse, better = rejected.where(gold, chosen), chosen.where(gold, rejected)
                paid = -worse if self.conflict.term == "sft" else super().cpo_loss(worse, better)[0]
                losses = losses + self.conflict.alpha * wrong * paid
            return (losses, *rewards)

    return WeightedCPOTrainer


@cache
def reward_trainer() -> Any:
    """Return TRL's reward trainer with weights, soft labels and a conflict."""
    import torch
    from torch.nn.functional import logsigmoid
    from trl import RewardTrainer

    class WeightedRewardTrainer(RewardTrainer):  # type: ignore[misc, unused-ignore]
        """Attributes: ``conflict`` is set once it is made."""

        conflict: Conflict | None = None

        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            terms, rest = Terms.take(inputs, len(inputs["input_ids"]) // 2)
            _, outputs = super().compute_loss(model, rest, True, num_items_in_batch)  # for its metrics
            chosen, rejected = outputs.logits.squeeze(-1).float().chunk(2)
            gap = chosen - rejected
            # binary cross entropy of the soft label, on the logit: stable where a sigmoid is 0 or 1
            loss = -(terms.p_pref * logsigmoid(gap) + (1 - terms.p_pref) * logsigmoid(-gap))
            loss = terms.weight * loss
            if self.conflict is not None:
                wrong = terms.against_gold(gap.detach())
                loss = loss - self.conflict.alpha * wrong * logsigmoid(gap.where(terms.gold_order == 0, -gap))
            total = loss.mean()
            if self.args.center_rewards_coefficient is not None:
                total = total + self.args.center_rewards_coefficient * ((chosen + rejected) ** 2).mean()
            return (total, outputs) if return_outputs else total

        def prediction_step(
            self, model: Any, inputs: Any, prediction_loss_only: bool, ignore_keys: list[str] | None = None
        ) -> tuple[Any, None, None]:
            with torch.no_grad(), self.compute_loss_context_manager():
                return self.compute_loss(model, self._prepare_inputs(inputs)).detach(), None, None

    return WeightedRewardTrainer
