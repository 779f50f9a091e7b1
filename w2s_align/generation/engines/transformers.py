"""The fallback engine: ``model.generate`` of transformers on left-padded batches.

Several times slower than vLLM, but runs wherever torch runs. Each completion is drawn with its own random generator,
so that it does not depend on the others in its batch (up to the rounding of sums, which differs with a batch's shape).
"""

from __future__ import annotations

import gc
import importlib.util
import itertools
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    MinPLogitsWarper,
    StoppingCriteria,
    StoppingCriteriaList,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from w2s_align.errors import UserError, missing_package
from w2s_align.generation.adapters import Adapter
from w2s_align.generation.engines.base import Completion, Request
from w2s_align.generation.models import ModelFiles
from w2s_align.generation.settings import Engine, EngineName, EngineResources, Sampling
from w2s_align.records import FinishReason

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

WINDOW_BATCHES = 8
"""Requests are sorted by length within this many batches: less padding, and finished responses still come soon."""


class TransformersEngine:
    """A transformers model; see :class:`~.base.EngineRun`.

    Raises:
        UserError: transformers does not know the model's architecture, or there is not enough memory.
    """

    name: EngineName = "transformers"

    def __init__(self, model: ModelFiles, engine: Engine, resources: EngineResources) -> None:
        self.dtype = engine.dtype if engine.dtype != "auto" else model.stored_dtype()
        self.device = torch.accelerator.current_accelerator().type if torch.accelerator.is_available() else "cpu"
        self.devices = int(self.device != "cpu")
        self._batch_size = resources.batch_size
        self._tokenizer = AutoTokenizer.from_pretrained(
            str(model.tokenizer_folder), trust_remote_code=engine.trust_remote_code
        )
        try:
            self._model: Any = AutoModelForCausalLM.from_pretrained(
                str(model.folder),
                dtype=getattr(torch, self.dtype),
                trust_remote_code=engine.trust_remote_code,
                use_safetensors=True,
            )
            if model.adapter is not None:
                self._model = _with_adapter(self._model, model.adapter)
            self._model.to(self.device)
        except (OSError, ValueError, KeyError) as error:
            raise UserError(
                f"transformers cannot load {model.name}.",
                why=f"{type(error).__name__}: {str(error).splitlines()[0]}",
                fix="Check the folder, or install a transformers version that knows the architecture.",
            ) from error
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"{model.name} does not fit into the memory of {self.device}.", fix="Use a smaller model."
            ) from error
        self._fused = None
        if engine.fusion is not None:
            from w2s_align.generation.engines.fused import FusedMembers

            self._fused = FusedMembers(engine.fusion, model, self.dtype, self.device)
        # generate() fills options that a call leaves out from generation_config.json: leave nothing there.
        self._model.generation_config = GenerationConfig()
        own_context = self._model.config.get_text_config().max_position_embeddings
        self.context_length: int = min(engine.max_model_len or own_context, own_context)

    def run(
        self, requests: Iterable[Request], sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> Generator[list[Completion], None, None]:
        """Generate the completions; see :meth:`.base.EngineRun.run`."""
        source = iter(requests)
        while window := list(itertools.islice(source, self._batch_size * WINDOW_BATCHES)):
            window.sort(key=lambda request: len(request.token_ids))
            # generate() has one max_new_tokens for a batch: a short prompt must not lose room to a long one.
            for room, same in itertools.groupby(window, key=lambda request: self._room(request, sampling)):
                while batch := list(itertools.islice(same, self._batch_size)):
                    yield self._run_batch(batch, room, sampling, stop_token_ids)

    def _room(self, request: Request, sampling: Sampling) -> int:
        return min(sampling.max_tokens, self.context_length - len(request.token_ids))

    @torch.inference_mode()  # type: ignore[untyped-decorator]
    def _run_batch(
        self, requests: Sequence[Request], room: int, sampling: Sampling, stop_token_ids: Sequence[int]
    ) -> list[Completion]:
        longest = max(len(request.token_ids) for request in requests)
        pad = stop_token_ids[0] if stop_token_ids else 0  # masked in the prompt, ignored after the end: any id works
        # ids, mask: [batch, longest prompt], padded on the left
        ids = torch.tensor([[pad] * (longest - len(r.token_ids)) + r.token_ids for r in requests], device=self.device)
        mask = torch.tensor(
            [[0] * (longest - len(r.token_ids)) + [1] * len(r.token_ids) for r in requests], device=self.device
        )
        draw = DrawPerRow(sampling, requests)
        processors = [draw] if self._fused is None else [self._fused.processor(mask), draw]
        ends = StopAtText(self._tokenizer, requests, sampling.stop)
        try:
            output = self._model.generate(
                input_ids=ids,
                attention_mask=mask,
                generation_config=GenerationConfig(
                    max_new_tokens=room,
                    do_sample=False,  # drawn by DrawPerRow, after which the largest score is taken
                    eos_token_id=list(stop_token_ids) or None,
                    pad_token_id=pad,
                ),
                logits_processor=LogitsProcessorList(processors),
                stopping_criteria=StoppingCriteriaList([ends] if sampling.stop else []),
            )
        except torch.OutOfMemoryError as error:
            raise UserError(
                f"A batch of {len(requests)} does not fit into the memory of {self.device}.",
                fix=f"Set resources.batch_size below {len(requests)}.",
            ) from error
        written = output[:, longest:].tolist()
        return [
            self._completion(row, request, written[row], sampling, set(stop_token_ids), draw, ends)
            for row, request in enumerate(requests)
        ]

    def _completion(
        self,
        row: int,
        request: Request,
        ids: list[int],
        sampling: Sampling,
        stop_ids: set[int],
        draw: DrawPerRow,
        ends: StopAtText,
    ) -> Completion:
        reason: FinishReason = "length"
        end = next((i for i, token in enumerate(ids) if token in stop_ids), None)
        stopped = ends.ended_after[row]
        if stopped is not None and (end is None or stopped <= end):
            reason, ids, tokens = "stop", ids[:stopped], stopped
        elif end is not None:
            reason, ids, tokens = "stop", ids[:end], end + 1
        else:
            tokens = len(ids)
        stream = TextStream(self._tokenizer, request.token_ids)
        text = "".join(stream.step(token) for token in ids)
        text = text[: min((at for at in map(text.find, sampling.stop) if at >= 0), default=len(text))]
        return Completion(request, text, reason, tokens, draw.logprob(row, tokens) if sampling.logprobs else None)

    def close(self) -> None:
        """Free the model's memory."""
        self._model = self._fused = None
        gc.collect()
        if self.device != "cpu":
            torch.accelerator.empty_cache()


def _with_adapter(model: Any, adapter: Adapter) -> Any:
    """Put a LoRA adapter on its base, unmerged, in the dtype of the base, as vLLM does."""
    if importlib.util.find_spec("peft") is None:
        raise missing_package("peft", "train", "an adapter on the transformers engine")
    from peft import PeftModel

    return PeftModel.from_pretrained(model, str(adapter.folder), autocast_adapter_dtype=False)


class DrawPerRow(LogitsProcessor):
    """Turns logits into scores whose largest entry is a draw from the distribution that ``Sampling`` describes.

    The Gumbel-max trick: the index of the largest ``log p + g``, with independent standard Gumbel ``g``, is a draw
    from ``p`` (Maddison, Tarlow and Minka, "A* Sampling", NeurIPS 2014, section 2). Every row has its own generator,
    on the CPU, so that a row's draws depend on its seed alone. Penalties, temperature, min_p, top_k and top_p are
    applied in vLLM's order.
    """

    def __init__(self, sampling: Sampling, requests: Sequence[Request]) -> None:
        self._sampling = sampling
        self._prompts = [request.token_ids for request in requests]
        self._generators = [
            None if request.seed is None else torch.Generator().manual_seed(request.seed) for request in requests
        ]
        self._prompt_length = max(len(prompt) for prompt in self._prompts)
        self._logprobs: list[torch.Tensor] = []
        self._filters: list[LogitsProcessor] = []
        if sampling.temperature > 0:
            if sampling.min_p > 0:
                self._filters.append(MinPLogitsWarper(sampling.min_p))
            if sampling.top_k > 0:
                self._filters.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1:
                self._filters.append(TopPLogitsWarper(sampling.top_p))

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return the scores of the next token. ``input_ids``: rows x length so far; ``scores``: rows x vocabulary."""
        raw = scores.float()
        drawn = self._penalized(raw, input_ids[:, self._prompt_length :])
        if self._sampling.temperature > 0:
            drawn = drawn / self._sampling.temperature
            for keep_likely in self._filters:
                drawn = keep_likely(input_ids, drawn)
            drawn = drawn + self._gumbel_noise(drawn.shape[-1]).to(drawn.device)
        if self._sampling.logprobs:
            choice = drawn.argmax(dim=-1, keepdim=True)
            self._logprobs.append(raw.log_softmax(dim=-1).gather(1, choice).squeeze(1))
        return drawn

    def logprob(self, row: int, tokens: int) -> float:
        """Return the log-probability of the first ``tokens`` generated tokens of a row, in nats."""
        return float(sum(step[row].item() for step in self._logprobs[:tokens]))

    def _gumbel_noise(self, vocabulary: int) -> torch.Tensor:
        noise = torch.zeros(len(self._generators), vocabulary)
        for row, generator in zip(noise, self._generators, strict=True):
            if generator is not None:
                row.exponential_(generator=generator).log_().neg_()
        return noise

    def _penalized(self, scores: torch.Tensor, generated: torch.Tensor) -> torch.Tensor:
        sampling = self._sampling
        if sampling.repetition_penalty == 1 and sampling.presence_penalty == 0 and sampling.frequency_penalty == 0:
            return scores
        counts = torch.zeros_like(scores).scatter_add_(1, generated, torch.ones_like(generated, dtype=scores.dtype))
        seen = counts > 0
        for row, prompt in enumerate(self._prompts):
            seen[row, prompt] = True
        penalty = sampling.repetition_penalty
        scores = torch.where(seen, torch.where(scores > 0, scores / penalty, scores * penalty), scores)
        return scores - sampling.frequency_penalty * counts - sampling.presence_penalty * (counts > 0)


class TextStream:
    """Decodes tokens as they come, continuing the prompt (else some tokenizers drop a leading space).

    It is the stream decoder that vLLM uses, so that equal tokens give equal texts. Special tokens are left out.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: Sequence[int]) -> None:
        from tokenizers.decoders import DecodeStream

        self._tokenizer = tokenizer
        self._stream = DecodeStream(ids=list(prompt), skip_special_tokens=True) if tokenizer.is_fast else None
        self._ids: list[int] = []
        self._text = ""

    def step(self, token: int) -> str:
        """Return the text that a token adds, which may be empty for a part of a character."""
        if self._stream is not None:
            return self._stream.step(self._tokenizer.backend_tokenizer, token) or ""
        self._ids.append(token)
        before, self._text = self._text, str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
        return self._text[len(before) :]


class StopAtText(StoppingCriteria):
    """Ends a row when its text, special tokens left out, contains one of the stop texts.

    ``StopStringCriteria`` of transformers (5.16) matches the names of tokens instead, and stops at ``a`` in
    ``<assistant>``.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, requests: Sequence[Request], stops: Sequence[str]) -> None:
        self._streams = [TextStream(tokenizer, request.token_ids) for request in requests]
        self._texts = [""] * len(requests)
        self._stops = stops
        self._steps = 0
        self.ended_after: list[int | None] = [None] * len(requests)
        """Generated tokens of each row when its stop text was complete; None where there is none."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **_: Any) -> torch.Tensor:
        """Return which rows have ended."""
        self._steps += 1
        for row, token in enumerate(input_ids[:, -1].tolist()):
            if self.ended_after[row] is None:
                self._texts[row] += self._streams[row].step(token)
                if any(stop in self._texts[row] for stop in self._stops):
                    self.ended_after[row] = self._steps
        ended = [after is not None for after in self.ended_after]
        return torch.tensor(ended, device=input_ids.device)
