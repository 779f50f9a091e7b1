"""Log-probability of a response under a model, and the implicit reward of a model against its reference.

Reads prompts and responses, renders them with the model's own chat template, runs transformers. The implicit reward is
DPO's: ``beta * (log p_model(response | prompt) - log p_reference(response | prompt))`` (Rafailov et al. 2023, section
4).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, TypeAlias

import pyarrow as pa

from w2s_align.errors import UserError, missing_package
from w2s_align.scoring.settings import LogprobSettings
from w2s_align.scoring.verdicts import BatchScorer, Verdicts

Span: TypeAlias = tuple[list[int], int]
"""Token ids of a whole chat, and how many of them are the prompt."""

TOO_LONG = "longer than the model reads"
NOT_A_PREFIX = "the prompt is not a token prefix of the chat"


@contextmanager
def logprob(settings: LogprobSettings) -> Iterator[BatchScorer]:
    """Score responses by their summed log-probability in nats, or by the implicit reward when there is a reference.

    A chat that is too long, or whose template renders the prompt differently once there is an answer, is unscored.
    """
    if find_spec("transformers") is None:
        raise missing_package("transformers", "train", "the logprob scorer")
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(settings.model, revision=settings.revision)
    if not tokenizer.chat_template:
        raise UserError(
            f"The tokenizer of {settings.model} has no chat template.", fix="Add a chat_template.jinja to it."
        )
    model, longest = _open(settings.model, settings.revision, settings)
    reference = None
    if settings.reference is not None:
        other = AutoTokenizer.from_pretrained(settings.reference, revision=settings.reference_revision)
        if other.get_vocab() != tokenizer.get_vocab():
            raise UserError(
                f"{settings.reference} and {settings.model} have different vocabularies.",
                why="An implicit reward compares the two on the same tokens.",
                fix="Use the model that training started from as the reference.",
            )
        reference, shorter = _open(settings.reference, settings.reference_revision, settings)
        longest = min(longest, shorter)

    def score_batch(prompts: pa.Table, responses: pa.Table) -> Verdicts:
        rows = zip(prompts["messages"].to_pylist(), responses["text"].to_pylist(), strict=True)
        spans = [_span(tokenizer, messages, text, longest) for messages, text in rows]
        good = [span for span in spans if not isinstance(span, str)]
        sums = model(good)
        if reference is not None:
            sums = [settings.beta * (own - base) for own, base in zip(sums, reference(good), strict=True)]
        if settings.per_token:
            sums = [value / (len(ids) - start) for value, (ids, start) in zip(sums, good, strict=True)]
        found = iter(sums)
        values = [None if isinstance(span, str) else next(found) for span in spans]
        details = [span if isinstance(span, str) else f"{len(span[0]) - span[1]} tokens" for span in spans]
        return Verdicts(values, details)

    yield score_batch


def _span(tokenizer: Any, messages: list[dict[str, str]], text: str, longest: int) -> Span | str:
    """Return the tokens of a chat and where its answer begins, or why it cannot be scored."""
    chat = [*messages, {"role": "assistant", "content": text}]
    ids = list(tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"])
    prompt = list(
        tokenizer.apply_chat_template(messages, tokenize=True, add_generation_prompt=True, return_dict=True)[
            "input_ids"
        ]
    )
    if len(ids) > longest:
        return TOO_LONG
    if ids[: len(prompt)] != prompt or len(ids) == len(prompt):
        return NOT_A_PREFIX
    return ids, len(prompt)


def _open(
    name: str, revision: str | None, settings: LogprobSettings
) -> tuple[Callable[[Sequence[Span]], list[float]], int]:
    """Open a causal model, on GPUs when there are any; return what sums log-probabilities, and the longest chat."""
    import torch
    from transformers import AutoModelForCausalLM

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = settings.dtype if settings.dtype != "auto" else ("auto" if device == "cuda" else "float32")
    layout = "sequential" if device == "cuda" else None  # one GPU after the other, where a model of 70B needs several
    model = AutoModelForCausalLM.from_pretrained(name, revision=revision, dtype=dtype, device_map=layout).eval()
    longest: int = settings.max_length or getattr(model.config, "max_position_embeddings", None) or 4096

    def sums(spans: Sequence[Span]) -> list[float]:
        values = [0.0] * len(spans)
        by_length = sorted(range(len(spans)), key=lambda row: len(spans[row][0]))
        for start in range(0, len(spans), settings.batch_size):
            rows = by_length[start : start + settings.batch_size]
            width = max(len(spans[row][0]) for row in rows)
            ids = torch.zeros((len(rows), width), dtype=torch.long)
            mask = torch.zeros((len(rows), width), dtype=torch.long)
            answer = torch.zeros((len(rows), width - 1))
            for i, row in enumerate(rows):
                tokens, begin = spans[row]
                ids[i, : len(tokens)] = torch.tensor(tokens)
                mask[i, : len(tokens)] = 1
                answer[i, begin - 1 : len(tokens) - 1] = 1
            with torch.inference_mode():
                logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1].float()
                targets = ids[:, 1:, None].to(device)
                logps = logits.gather(-1, targets).squeeze(-1) - logits.logsumexp(-1)
                totals = (logps.cpu() * answer).sum(-1)
            for row, value in zip(rows, totals.tolist(), strict=True):
                values[row] = value
        return values

    return sums, longest
