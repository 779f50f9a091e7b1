"""What trainings share whose responses the student writes itself: settings, prompts, alarms, and the trainer's making.

Reads prompts (``Prompt.SCHEMA``, or a column ``prompt`` of messages). How a response is written is TRL's: by
transformers, or on GPUs by vLLM in the same process or as a server.
"""

from __future__ import annotations

import json
import statistics
from collections import deque
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field, field_validator

from w2s_align.errors import UserError
from w2s_align.records import MESSAGES
from w2s_align.training.arguments import trainer_arguments
from w2s_align.training.arrow_file import store_rows
from w2s_align.training.batching import fixed_order
from w2s_align.training.health import WINDOW, Health
from w2s_align.training.layout import Layout, on_cpu
from w2s_align.training.resources import TrainResources
from w2s_align.training.settings import TrainSettings
from w2s_align.training.tokens import Answer

if TYPE_CHECKING:
    from w2s_align.training.data import RowCollector, TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.plan import TrainingPlan
    from w2s_align.training.tokens import ChatEncoder

CUT = 0.5
"""More than this share of responses cut at their limit is an alarm: what the loss sees is then mostly unfinished."""
SILENT = 0.95
"""More than this share of groups with equal rewards is an alarm: nearly no response has an advantage."""
GROWTH = 2.0
"""Responses that are so many times as long as at the start are an alarm."""
RECORD = "record"
"""Column of the stored rows that holds the prompt's record as JSON, for rewards."""
RESPONSE = "response (at most)"
"""Side of the stored rows: the room that a response has."""


class RolloutSettings(TrainSettings):
    """What is set where the student writes the responses."""

    max_completion_length: int = Field(512, gt=0)
    """Longest response of the training, in tokens."""
    temperature: float = Field(1.0, gt=0)
    """Temperature that responses are drawn at."""
    rollouts: Literal["transformers", "vllm_colocate", "vllm_server"] = "transformers"
    """What writes the responses. On GPUs vLLM is faster, in the same process or as a server started by `trl
    vllm-serve`; its other options go into trl: {vllm_...: ...}. Both vLLM ways are TRL's and were never run here."""

    @field_validator("merge_start")
    @classmethod
    def _starts_merged(cls, value: bool) -> bool:
        if not value:
            raise ValueError(
                "what the student is held to would be the adapter's base and not its start; leave merge_start out"
            )
        return value

    @field_validator("too_long")
    @classmethod
    def _nothing_to_cut(cls, value: str) -> str:
        if value == "truncate":
            raise ValueError("there is no response to truncate yet; use drop or error")
        return value

    def check_rollouts(self, resources: TrainResources, layout: Layout) -> None:
        """Refuse what cannot write responses with the weights in training.

        Raises:
            UserError: With what to use instead.
        """
        if self.rollouts != "transformers" and on_cpu(resources):
            raise UserError(
                f"rollouts: {self.rollouts} needs a GPU.",
                "On a CPU vLLM repacks its weights when it loads them and cannot take new ones.",
                "Use rollouts: transformers.",
            )


def prepare_prompts(
    rows: Rows, encoder: ChatEncoder, settings: RolloutSettings, folder: Path, seed: int, *, records: bool = False
) -> TrainingData:
    """Check prompts, and store those that leave room for a response, in the order in which they are asked.

    Every epoch has the same order: the sampler of TRL's trainers shuffles with a generator that goes on from epoch to
    epoch, which a checkpoint does not know (TRL 1.16, docs/upstream.md).

    Args:
        rows: Prompts.
        encoder: The student's tokenizer and template.
        settings: Lengths, and what to do beyond them.
        folder: See :func:`~w2s_align.training.arrow_file.store_rows`.
        seed: Seed of the order.
        records: Keep each prompt's whole row, with its gold answer, for rewards. Without, what is stored does not
            depend on gold answers.

    Raises:
        UserError: A column is missing, whole rows are needed and these have no ids, or no prompt is left.
    """
    schema = pa.schema([("prompt", MESSAGES), *([(RECORD, pa.string())] if records else [])])
    room = [0] * settings.max_completion_length

    def convert(batch: list[dict[str, Any]], table: RowCollector) -> list[dict[str, Any]]:
        if records and batch and "id" not in batch[0]:
            raise UserError(
                f"The prompts have the columns {', '.join(batch[0])}.",
                "Rewards need whole prompts: their ids, tasks and gold answers.",
                "Give prompts of step prompts, or a table of w2s_align.records.Prompt.",
            )
        asked = [row for row in batch if row.get("messages") or row.get("prompt")]
        table.dropped["without_prompt"] += len(batch) - len(asked)
        chats = [row.get("messages") or row["prompt"] for row in asked]
        return [
            {"prompt": chat, **({RECORD: json.dumps(row, sort_keys=True)} if records else {})}
            for row, chat, ids in zip(asked, chats, encoder.prompts(chats), strict=True)
            if table.keep({RESPONSE: Answer(ids + room, len(ids))})
        ]

    def arrange(stored: pa.Table) -> pa.Table:
        return stored.take(fixed_order(len(stored), settings, seed))

    key = {"room": len(room), "seed": seed, "batch": settings.batch_size // settings.responses_per_prompt}
    data = store_rows(rows, schema, ("messages",), convert, encoder, settings, folder, arrange, **key)
    preview = [{**row, "tokens": row["tokens"] - len(room), "last": []} for row in data.preview]
    for row in preview:
        row["first"] = [token for token in row["first"] if not token[1]]
    return replace(data, preview=preview)


@dataclass
class RolloutHealth(Health):
    """Watches what the student writes as well."""

    _lengths: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _first_length: float | None = None
    _cut: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))
    _silent: deque[float] = field(default_factory=lambda: deque(maxlen=WINDOW))

    def observe(self, row: dict[str, Any]) -> None:
        """Take in the metrics of one step; see :meth:`Health.observe`."""
        super().observe(row)
        for name, values in (
            ("completions/mean_length", self._lengths),
            ("completions/clipped_ratio", self._cut),
            ("frac_reward_zero_std", self._silent),
        ):
            if name in row:
                values.append(row[name])
        if len(self._lengths) < WINDOW:
            return
        length = statistics.fmean(self._lengths)
        self._first_length = self._first_length or length
        if length > GROWTH * self._first_length:
            self.alarm(
                row["step"],
                "longer",
                f"Responses have {length:.0f} tokens, {self._first_length:.0f} at the start: look at some of them. "
                "Lower learning_rate, or the strength of what pulls them (alpha, reward).",
            )
        if statistics.fmean(self._cut) > CUT:
            share = statistics.fmean(self._cut)
            self.alarm(
                row["step"],
                "cut",
                f"{share:.0%} of the responses were cut at their limit: raise max_completion_length.",
            )
        if len(self._silent) == WINDOW and statistics.fmean(self._silent) > SILENT:
            share = statistics.fmean(self._silent)
            self.alarm(
                row["step"],
                "no_signal",
                f"In {share:.0%} of the groups all rewards are equal, so that nothing is learned from them: choose "
                "prompts that the student solves sometimes, more num_generations, or another reward.",
            )


def rollout_health(plan: TrainingPlan) -> Health:
    """Return the rules for a training whose responses the student writes."""
    return RolloutHealth(exact=plan.dtype == "float32")


def rollout_arguments(plan: TrainingPlan) -> dict[str, Any]:
    """Return the arguments that TRL's on-policy configurations share."""
    settings = plan.settings
    assert isinstance(settings, RolloutSettings)
    vllm = {} if settings.rollouts == "transformers" else {"vllm_mode": settings.rollouts.removeprefix("vllm_")}
    return {
        "shuffle_dataset": False,
        "max_completion_length": settings.max_completion_length,
        "temperature": settings.temperature,
        "chat_template_kwargs": settings.chat_template_kwargs or None,
        "use_vllm": bool(vllm),
        **vllm,
    }


def rollout_trainer(trainer: Any, plan: TrainingPlan, callbacks: list[Any], **arguments: Any) -> Any:
    """Make a trainer that lets the student respond to the plan's prompts.

    Args:
        trainer: Its class.
        plan: The training.
        callbacks: The callbacks that the loop wants to be called.
        **arguments: What only this trainer takes.
    """
    rows, held_out = plan.split()
    shared = trainer_arguments(plan, callbacks)
    shared["processing_class"].padding_side = "left"  # responses are written after their prompts
    return trainer(train_dataset=rows, eval_dataset=held_out, **shared, **arguments)
