"""Log-probability of a response under a model, and the implicit reward of a model against its reference.

Reads prompts and responses, renders them with the model's own chat template, runs transformers. The implicit reward is
DPO's: ``beta * (log p_model(response | prompt) - log p_reference(response | prompt))`` (Rafailov et al. 2023,
arXiv 2305.18290, section 4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, TypeAlias

import pyarrow as pa
from pydantic import Field

from w2s_align.errors import UserError, missing_package
from w2s_align.scoring.scorer import Assessment, BatchScorer, Outcome, Scorer, unscored

Span: TypeAlias = tuple[list[int], int]
"""Token ids of a whole chat, and how many of them are the prompt."""

NOT_A_PREFIX = "the prompt is not a token prefix of the chat"
"""Why a response is unscored whose tokens cannot be told from the prompt's."""


class LogprobScorer(Scorer):
    """The log-probability of a response under a model, or the implicit reward of the model against a reference.

    Scores are named ``logprob:<model>``, with a reference ``implicit_reward:<model>``.
    """

    name: Literal["logprob"] = "logprob"
    model: str
    """Hub id or folder of the model."""
    revision: str | None = None
    """Revision on the hub."""
    reference: str | None = None
    """The model that training started from; with it the score is ``beta`` times the difference of
    log-probabilities."""
    reference_revision: str | None = None
    """Revision of the reference on the hub."""
    beta: float = Field(default=0.1, gt=0)
    """Scale of the implicit reward; without a reference it has no effect."""
    per_token: bool = False
    """Divide by the number of the response's tokens."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format; auto is the model's own (float32 on a CPU)."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest chat in tokens; a longer one is unscored. Null for what the model was made for."""
    batch_size: int = Field(default=8, ge=1)
    """Chats per forward pass; changes no score."""

    models: ClassVar[Mapping[str, str]] = {"model": "revision", "reference": "reference_revision"}

    @property
    def label(self) -> str:
        """What ``Score.scorer`` says."""
        return f"{'logprob' if self.reference is None else 'implicit_reward'}:{self.model}"

    @property
    def runs_transformers(self) -> bool:
        """Whether transformers runs the model: always."""
        return True

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Score by the summed log-probability in nats, or by the implicit reward when there is a reference.

        A chat that is too long, or whose template renders the prompt differently once there is an answer, is
        unscored.

        Raises:
            UserError: The model has no chat template, or another vocabulary than its reference.
        """
        if find_spec("transformers") is None:
            raise missing_package("transformers", "train", "the logprob scorer")
        from transformers import AutoTokenizer

        tokenizer = AutoTokenizer.from_pretrained(self.model, revision=self.revision, trust_remote_code=False)
        if not tokenizer.chat_template:
            raise UserError(
                f"The tokenizer of {self.model} has no chat template.", fix="Add a chat_template.jinja to it."
            )
        model, longest = _open(self.model, self.revision, self)
        reference = None
        if self.reference is not None:
            other = AutoTokenizer.from_pretrained(
                self.reference, revision=self.reference_revision, trust_remote_code=False
            )
            if other.get_vocab() != tokenizer.get_vocab():
                raise UserError(
                    f"{self.reference} and {self.model} have different vocabularies.",
                    why="An implicit reward compares the two on the same tokens.",
                    fix="Use the model that training started from as the reference.",
                )
            reference, shorter = _open(self.reference, self.reference_revision, self)
            longest = min(longest, shorter)

        def score_batch(prompts: pa.Table, responses: pa.Table) -> list[Assessment]:
            rows = zip(prompts["messages"].to_pylist(), responses["text"].to_pylist(), strict=True)
            spans = [span_of(tokenizer, messages, text, longest) for messages, text in rows]
            good = [span for span in spans if not isinstance(span, str)]
            sums = model(good)
            if reference is not None:
                sums = [self.beta * (own - base) for own, base in zip(sums, reference(good), strict=True)]
            if self.per_token:
                sums = [value / (len(ids) - start) for value, (ids, start) in zip(sums, good, strict=True)]
            found = iter(sums)
            return [
                unscored(span)
                if isinstance(span, str)
                else Assessment(next(found), f"{len(span[0]) - span[1]} tokens")
                for span in spans
            ]

        yield score_batch


def span_of(tokenizer: Any, messages: list[dict[str, str]], text: str, longest: int) -> Span | str:
    """Return the tokens of a chat and where its answer begins, or why it cannot be scored."""
    chat = [*messages, {"role": "assistant", "content": text}]
    ids = list(tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"])
    prompt = list(
        tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
    )
    if len(ids) > longest:
        return Outcome.TOO_LONG
    if ids[: len(prompt)] != prompt or len(ids) == len(prompt):
        return NOT_A_PREFIX
    return ids, len(prompt)


def padded(spans: Sequence[Span]) -> tuple[Any, Any, Any]:
    """Return chats as tensors, filled up on the right.

    Args:
        spans: Of :func:`span_of`.

    Returns:
        Token ids and attention mask, [chats, tokens], and 1 where the next token belongs to the response, [chats,
        tokens - 1].
    """
    import torch

    width = max(len(tokens) for tokens, _ in spans)
    ids = torch.zeros((len(spans), width), dtype=torch.long)
    mask = torch.zeros_like(ids)
    answer = torch.zeros((len(spans), width - 1))
    for i, (tokens, begin) in enumerate(spans):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        mask[i, : len(tokens)] = 1
        answer[i, begin - 1 : len(tokens) - 1] = 1
    return ids, mask, answer


def _open(
    name: str, revision: str | None, scorer: LogprobScorer
) -> tuple[Callable[[Sequence[Span]], list[float]], int]:
    """Open a causal model, on GPUs when there are any; return what sums log-probabilities, and the longest chat."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = scorer.dtype if scorer.dtype != "auto" else ("auto" if device == "cuda" else "float32")
    layout = "sequential" if device == "cuda" else None  # one GPU after the other, where a model of 70B needs several
    model = AutoModelForCausalLM.from_pretrained(
        name, revision=revision, dtype=dtype, device_map=layout, trust_remote_code=False
    ).eval()
    longest: int = scorer.max_length or getattr(model.config, "max_position_embeddings", None) or 4096

    def sums(spans: Sequence[Span]) -> list[float]:
        values = [0.0] * len(spans)
        by_length = sorted(range(len(spans)), key=lambda row: len(spans[row][0]))
        for start in range(0, len(spans), scorer.batch_size):
            rows = by_length[start : start + scorer.batch_size]
            ids, mask, answer = padded([spans[row] for row in rows])
            with torch.inference_mode():
                logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1].float()
                targets = ids[:, 1:, None].to(device)
                logps = logits.gather(-1, targets).squeeze(-1) - logits.logsumexp(-1)
                totals = (logps.cpu() * answer).sum(-1)
            for row, value in zip(rows, totals.tolist(), strict=True):
                values[row] = value
        return values

    return sums, longest
