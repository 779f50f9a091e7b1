"""Rewards of responses in training: the scorers of the catalogue as reward functions of TRL's trainers."""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeAlias

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring import score as score_responses
from w2s_align.scoring import scorer_settings
from w2s_align.scoring.scorer import Scorer
from w2s_align.training.rollouts import RECORD

RewardFunction: TypeAlias = Callable[..., list[float]]
"""What TRL calls with prompts, completions, completion_ids and every other column of the rows."""

SOME_UNSCORED = 0.5
"""More than this share of responses without a score stops the training: the rest says little about the reward."""


def check_reward(scorer: str | Scorer) -> Scorer:
    """Return a scorer that can reward responses while they are written.

    Raises:
        UserError: There is no such scorer, or it asks a model or compares responses with each other.
    """
    found = scorer_settings(scorer)
    if found.models:
        raise UserError(
            f"The scorer {found.name} asks a model, which does not fit beside a training.",
            fix="Use a scorer that checks answers, counts features or runs tests. To learn from a reward model, score "
            "generated responses with it, pair them and train with dpo, round after round.",
        )
    if found.whole_table:
        raise UserError(
            f"The scorer {found.name} compares all responses with each other.",
            "In training there is only one batch of them at a time.",
            "Use a scorer that looks at one response.",
        )
    return found


def reward_function(scorer: Scorer, stops: Collection[int]) -> RewardFunction:
    """Return a scorer as a reward function.

    A response without a score gets the mean of its group: it then has no advantage, and the others' advantages are
    what they would be without it. (TRL would take a missing reward for 0.)

    Args:
        scorer: From :func:`check_reward`.
        stops: Tokens that end a response; one that does not end was cut.
    """

    def rewards(
        completions: Sequence[Any], completion_ids: Sequence[Sequence[int]], log_metric: Any = None, **columns: Any
    ) -> list[float]:
        records: list[str] = columns[RECORD]
        rows = {record: json.loads(record) for record in records}
        prompts = pa.Table.from_pylist(list({row["id"]: row for row in rows.values()}.values()), schema=Prompt.SCHEMA)
        written = [
            Response(
                rows[record]["id"],
                number,
                "student",
                chat[-1]["content"] if isinstance(chat, list) else chat,
                finish_reason="stop" if ids and ids[-1] in stops else "length",
            )
            for number, (record, chat, ids) in enumerate(zip(records, completions, completion_ids, strict=True))
        ]
        scored = score_responses(prompts, to_table(written), scorer)
        found = scored.table["value"].to_pylist()
        unscored = found.count(None)
        if log_metric is not None:
            log_metric("unscored", unscored / len(found))
        if unscored > SOME_UNSCORED * len(found):
            reasons = ", ".join(f"{reason} ({n})" for reason, n in scored.unscored.items())
            raise UserError(
                f"{unscored} of {len(found)} responses of a batch could not be scored by {scorer.name}.",
                f"Reasons: {reasons}.",
                "Give prompts with gold answers, or another reward.",
            )
        groups: dict[str, list[float]] = defaultdict(list)
        for record, value in zip(records, found, strict=True):
            if value is not None:
                groups[record].append(value)
        means = {record: statistics.fmean(values) for record, values in groups.items()}
        return [
            value if value is not None else means.get(record, 0.0)
            for record, value in zip(records, found, strict=True)
        ]

    rewards.__name__ = scorer.label.replace(":", "_")  # TRL names its metrics by it
    return rewards
