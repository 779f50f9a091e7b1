"""The quick task: greedy answers of the model in training to a few prompts, checked without another model.

Reads a Parquet file of prompts (``Prompt.SCHEMA``); writes nothing. Several processes share the prompts; the first one
checks the answers and tells the others. When to measure, and what follows from it, is the recorder's (callbacks.py).
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError
from w2s_align.records import Prompt, Response, to_table
from w2s_align.training.batching import MICRO_BATCH_TOKENS
from w2s_align.training.plan import TrainingPlan, is_main
from w2s_align.training.tokens import ChatEncoder

if TYPE_CHECKING:
    import pyarrow as pa


@dataclass(frozen=True)
class Questions:
    """The prompts of a quick task.

    Attributes:
        prompts: Rows of ``Prompt.SCHEMA``.
        tokens: Each prompt in the student's tokens, up to where its answer begins.
    """

    prompts: pa.Table
    tokens: list[list[int]]

    @property
    def digest(self) -> str:
        """SHA-256 of prompts, gold answers and what else a scorer reads."""
        return hashlib.sha256(repr(self.prompts.to_pylist()).encode()).hexdigest()


def read_questions(plan: TrainingPlan) -> Questions:
    """Read the prompts of a training's quick task in the student's tokens.

    Raises:
        UserError: There are none, a column is missing, one leaves no room for an answer in the student's context, or
            there is no such scorer.
    """
    import pyarrow.dataset as ds

    from w2s_align.scoring import scorer_settings

    task = plan.settings.quick_task
    assert task is not None
    scorer_settings(task.scorer)
    path = Path(task.prompts)
    files = sorted(path.glob("*.parquet")) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise UserError(f"quick_task: there are no prompts in {path}.", fix="Give a Parquet file of prompts.")
    table = ds.dataset([str(file) for file in files], format="parquet").head(task.limit)
    missing = [name for name in Prompt.SCHEMA.names if name not in table.schema.names]
    if missing or not table.num_rows:
        lacks = f"has no column {missing[0]}" if missing else "has no rows"
        raise UserError(f"quick_task: {path} {lacks}.", fix="Prompts are what a step of kind prompts writes.")
    start = plan.start
    encoder = ChatEncoder(start.tokenizer, start.stop_ids, plan.settings.chat_template_kwargs)
    tokens = encoder.prompts(table["messages"].to_pylist())
    longest = max(map(len, tokens)) + task.max_tokens
    if start.context is not None and longest > start.context:
        raise UserError(
            f"quick_task: the longest prompt and its answer may take {longest} tokens; the context of "
            f"{start.source} is {start.context}.",
            fix="Lower max_tokens of the quick task, or choose shorter prompts.",
        )
    return Questions(table, tokens)


class QuickCheck:
    """Measures the accuracy of the model in training.

    Args:
        plan: The training; its settings have a quick task.
    """

    def __init__(self, plan: TrainingPlan) -> None:
        assert plan.settings.quick_task is not None
        self.plan, self.task, self.questions = plan, plan.settings.quick_task, read_questions(plan)

    def measure(self, model: Any) -> dict[str, float]:
        """Return the accuracy of a model that this process holds whole; all processes must call it.

        Returns:
            ``accuracy`` (mean score of the answers that could be scored), ``cut`` and ``unscored`` (numbers of
            answers).

        Raises:
            UserError: No answer can be scored, or the scorer cannot work.
        """
        rank, world = int(os.environ.get("RANK", "0")), self.plan.layout.processes
        answers = self._answers(model, range(rank, len(self.questions.tokens), world))
        if world > 1:
            answers = _joined(answers, world)
        found = [self._check(answers) if is_main() else {}]
        if world > 1:
            import torch.distributed

            torch.distributed.broadcast_object_list(found, src=0)
        if isinstance(found[0], UserError):
            raise found[0]
        return found[0]

    def _answers(self, model: Any, mine: range) -> dict[int, tuple[str, bool]]:
        """Answer these questions greedily; returns text and whether it came to its end, by question."""
        import torch
        from transformers import GenerationConfig

        inner = model.get_base_model() if hasattr(model, "get_base_model") else model
        device = next(inner.parameters()).device
        tokenizer, stops = self.plan.start.tokenizer, self.plan.start.stop_ids
        pad = min(stops)  # masked before the prompt, ignored after the end: any token will do
        own, was_training, found = inner.generation_config, model.training, {}
        # generate() fills what a call leaves open from the model's own configuration: leave nothing there to be taken.
        inner.generation_config = GenerationConfig()
        model.eval()
        try:
            for some in self._batches(mine):
                prompts = [self.questions.tokens[i] for i in some]
                size = max(map(len, prompts))
                ids = torch.tensor([[pad] * (size - len(row)) + row for row in prompts], device=device)
                mask = torch.tensor([[0] * (size - len(row)) + [1] * len(row) for row in prompts], device=device)
                with torch.no_grad():
                    made = inner.generate(
                        input_ids=ids,
                        attention_mask=mask,
                        generation_config=GenerationConfig(
                            max_new_tokens=self.task.max_tokens,
                            do_sample=False,
                            use_cache=True,
                            eos_token_id=sorted(stops),
                            pad_token_id=pad,
                        ),
                    )[:, size:].tolist()
                for i, row in zip(some, made, strict=True):
                    end = next((place for place, token in enumerate(row) if token in stops), None)
                    found[i] = (tokenizer.decode(row[:end], skip_special_tokens=True), end is not None)
        finally:
            inner.generation_config = own
            model.train(was_training)
        return found

    def _batches(self, mine: range) -> list[list[int]]:
        by_length = sorted(mine, key=lambda i: len(self.questions.tokens[i]))
        longest = max(map(len, self.questions.tokens)) + self.task.max_tokens
        size = max(1, MICRO_BATCH_TOKENS // longest)
        return [by_length[i : i + size] for i in range(0, len(by_length), size)]

    def _check(self, answers: dict[int, tuple[str, bool]]) -> dict[str, float] | UserError:
        """Return the share of right answers among those that could be scored, and how many were cut or not scored."""
        from w2s_align.scoring import score

        ids = self.questions.prompts["id"].to_pylist()
        rows = [
            Response(ids[i], 0, "student", text, finish_reason="stop" if ended else "length")
            for i, (text, ended) in sorted(answers.items())
        ]
        try:
            scores = score(self.questions.prompts, to_table(rows), self.task.scorer)
        except UserError as error:
            return error
        if scores.mean is None:
            reasons = ", ".join(f"{reason} ({n})" for reason, n in scores.unscored.items())
            return UserError(
                "quick_task: none of the answers could be scored.",
                f"Reasons: {reasons}.",
                "Give prompts with gold answers, or another scorer.",
            )
        unscored = sum(scores.unscored.values())
        return {"accuracy": scores.mean, "cut": sum(not end for _, end in answers.values()), "unscored": unscored}


def _joined(answers: dict[int, tuple[str, bool]], world: int) -> dict[int, tuple[str, bool]]:
    import torch.distributed

    parts: list[Any] = [None] * world
    torch.distributed.all_gather_object(parts, answers)
    return {i: answer for part in parts for i, answer in part.items()}
