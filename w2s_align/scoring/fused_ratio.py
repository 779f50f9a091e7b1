"""How much more likely a fused model finds the responses of a student than the student does, token by token.

Reads prompts and responses; runs the student and the models of the contrasts once over each response, and generates
nothing. Imports torch inside the function.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.families.fusion import Fusion, check_vocabularies
from w2s_align.scoring.scorer import Outcome
from w2s_align.scoring.scorers.logprob import Span, padded, span_of


@dataclass
class FusedRatios:
    """What was found for each response.

    Attributes:
        log_ratios: By factor of the contrasts, ``log target - log student`` summed over the response; None for a
            response that could not be read.
        deltas: The contrasts' own sum over the response, in nats: alpha times ``log plus - log minus``.
        tokens: Tokens of each response.
        skipped: Responses that could not be read, by reason.
    """

    log_ratios: dict[float, list[float | None]]
    deltas: list[float | None]
    tokens: list[int | None]
    skipped: Counter[str] = field(default_factory=Counter)


def fused_ratios(
    prompts: pa.Table,
    responses: pa.Table,
    model: str,
    fusion: Fusion,
    factors: Sequence[float],
    *,
    batch_size: int = 8,
    dtype: str = "auto",
    progress: Callable[[int, int, str], None] | None = None,
) -> FusedRatios:
    """Compare a fused target with the student on the student's own responses.

    Args:
        prompts: Rows of ``Prompt.SCHEMA``.
        responses: Rows of ``Response.SCHEMA``, drawn from the student at temperature 1.
        model: The student: a folder or a hub id.
        fusion: What shifts its logits; models are folders or hub ids.
        factors: What the contrasts' alphas are multiplied by, one target for each.
        batch_size: Responses per forward pass.
        dtype: Number format of the models; auto is their own (float32 on a CPU).
        progress: Called with the responses done, all of them, and a note.

    Raises:
        UserError: The models have different vocabularies, or none of the responses can be read.
    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from w2s_align.families.fused_logits import fused_log_probs

    device = "cuda" if torch.cuda.is_available() else "cpu"
    wanted = dtype if dtype != "auto" else ("auto" if device == "cuda" else "float32")
    names = list(dict.fromkeys([model, *fusion.models().values()]))
    tokenizers = {name: AutoTokenizer.from_pretrained(name, trust_remote_code=False) for name in names}
    check_vocabularies({name: tokenizer.get_vocab() for name, tokenizer in tokenizers.items()})
    models: dict[str, Any] = {
        name: AutoModelForCausalLM.from_pretrained(name, dtype=wanted, trust_remote_code=False).to(device).eval()
        for name in names
    }
    longest = min(getattr(one.config, "max_position_embeddings", None) or 4096 for one in models.values())
    asked = dict(zip(prompts["id"].to_pylist(), prompts["messages"].to_pylist(), strict=True))
    rows = zip(responses["prompt_id"].to_pylist(), responses["text"].to_pylist(), strict=True)
    spans: list[Span | str] = [
        span_of(tokenizers[model], asked[prompt], text, longest)
        if prompt in asked and text is not None
        else (Outcome.NO_PROMPT if prompt not in asked else Outcome.NO_RESPONSE)
        for prompt, text in rows
    ]
    count = len(spans)
    found = FusedRatios({factor: [None] * count for factor in factors}, [None] * count, [None] * count)
    found.skipped.update(span for span in spans if isinstance(span, str))
    good = [(row, span) for row, span in enumerate(spans) if not isinstance(span, str)]
    if not good:
        raise UserError(
            "None of the responses can be read.",
            f"Reasons: {', '.join(f'{reason} ({n})' for reason, n in found.skipped.items())}.",
            "Give the student's own responses to these prompts.",
        )
    good.sort(key=lambda entry: len(entry[1][0]))
    for start in range(0, len(good), batch_size):
        some = good[start : start + batch_size]
        ids, mask, answer = padded([span for _, span in some])
        with torch.inference_mode():
            logits = {
                name: one(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, :-1].float()
                for name, one in models.items()
            }
            size = min(z.shape[-1] for z in logits.values())
            logits = {name: z[..., :size] for name, z in logits.items()}
            target_ids = ids[:, 1:, None].to(device)

            def summed(log_probs: Any, target_ids: Any = target_ids, answer: Any = answer) -> list[float]:
                picked = log_probs.gather(-1, target_ids).squeeze(-1).cpu()
                total: list[float] = (picked * answer).sum(-1).tolist()
                return total

            own = summed(logits[model].log_softmax(-1))
            each = {name: summed(z.log_softmax(-1)) for name, z in logits.items()}
            for factor in factors:
                contrasts = [(factor * c.alpha, logits[c.plus], logits[c.minus]) for c in fusion.contrasts]
                target = summed(fused_log_probs(logits[model], contrasts, fusion.plausibility))
                for i, (row, _) in enumerate(some):
                    found.log_ratios[factor][row] = target[i] - own[i]
        for i, (row, (tokens, begin)) in enumerate(some):
            found.deltas[row] = sum(c.alpha * (each[c.plus][i] - each[c.minus][i]) for c in fusion.contrasts)
            found.tokens[row] = len(tokens) - begin
        if progress:
            progress(min(start + batch_size, len(good)), len(good), "responses")
    return found
