"""Reward models: a scalar per response from a sequence classifier, through vLLM's pooling engine or transformers.

Reads prompts and responses, renders both with the reward model's own chat template to token ids, returns raw logits
(no sigmoid), higher is better. The two engines agree to 1e-3.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import Any, ClassVar, Literal, TypeAlias

import pyarrow as pa
from pydantic import Field

from w2s_align.errors import UserError, missing_package
from w2s_align.files import installed_version
from w2s_align.scoring.scorer import Assessment, BatchScorer, Outcome, Scorer, unscored

Rewards: TypeAlias = Callable[[Sequence[list[int]]], list[float]]
"""Takes token ids of whole chats, returns one raw logit each."""


class RewardScorer(Scorer):
    """The scalar of a reward model (sequence classification with one label); scores are named ``reward:<model>``."""

    name: Literal["reward"] = "reward"
    model: str
    """Hub id or folder of the reward model."""
    revision: str | None = None
    """Revision on the hub."""
    engine: Literal["auto", "vllm", "transformers"] = "auto"
    """What runs the model; auto takes vLLM where it is installed."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format; auto is the model's own (float32 with transformers on a CPU)."""
    max_length: int | None = Field(default=None, ge=1)
    """Longest chat in tokens; a longer one is unscored. Null for what the model was made for."""
    batch_size: int = Field(default=8, ge=1)
    """Chats per forward pass with transformers; changes no score."""

    models: ClassVar[Mapping[str, str]] = {"model": "revision"}

    @property
    def label(self) -> str:
        """What ``Score.scorer`` says."""
        return f"reward:{self.model}"

    @property
    def runs_transformers(self) -> bool:
        """Whether transformers is asked for; with auto that depends on the machine."""
        return self.engine == "transformers"

    def versions(self) -> dict[str, str | None]:
        """Return the versions of the libraries that can run the model."""
        found = super().versions()
        if self.engine != "transformers":
            found["vllm"] = installed_version("vllm") or installed_version("vllm-cpu")
        return found

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Open the model; a chat longer than ``max_length`` is unscored, never cut.

        Raises:
            UserError: The model is not a reward model or has no chat template, or a package is not installed.
        """
        tokenizer, context = self._read()
        longest: int = self.max_length or context or 4096
        engine = self.engine
        if engine == "auto":
            engine = "vllm" if find_spec("vllm") else "transformers"
        rewards = (_vllm if engine == "vllm" else _transformers)(self, tokenizer, longest)

        def score_batch(prompts: pa.Table, responses: pa.Table) -> list[Assessment]:
            chats = [
                [*messages, {"role": "assistant", "content": text}]
                for messages, text in zip(prompts["messages"].to_pylist(), responses["text"].to_pylist(), strict=True)
            ]
            ids = [tokenizer.apply_chat_template(chat, tokenize=True, return_dict=True)["input_ids"] for chat in chats]
            fitting = [row for row, tokens in enumerate(ids) if len(tokens) <= longest]
            found = [unscored(Outcome.TOO_LONG)] * len(ids)
            for row, value in zip(fitting, rewards([ids[row] for row in fitting]), strict=True):
                found[row] = Assessment(value)
            return found

        yield score_batch

    def _read(self) -> tuple[Any, int | None]:
        """Return the tokenizer and the longest chat that the model was made for."""
        if find_spec("transformers") is None:
            raise missing_package("transformers", "train", "the reward scorer")
        from transformers import AutoConfig, AutoTokenizer

        config = AutoConfig.from_pretrained(self.model, revision=self.revision, trust_remote_code=False)
        architecture = (config.architectures or ["none"])[0]
        if config.num_labels != 1 or not architecture.endswith("ForSequenceClassification"):
            raise UserError(
                f"{self.model} is not a reward model.",
                why=f"It is a {architecture} with {config.num_labels} labels.",
                fix="Use a model for sequence classification with one label.",
            )
        tokenizer = AutoTokenizer.from_pretrained(self.model, revision=self.revision, trust_remote_code=False)
        if not tokenizer.chat_template:
            raise UserError(
                f"The tokenizer of {self.model} has no chat template.", fix="Add a chat_template.jinja to it."
            )
        return tokenizer, getattr(config, "max_position_embeddings", None)


def _transformers(scorer: RewardScorer, tokenizer: Any, longest: int) -> Rewards:
    """Open the model in transformers, on a GPU when there is one."""
    import torch
    from transformers import AutoModelForSequenceClassification

    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = scorer.dtype if scorer.dtype != "auto" else ("auto" if device == "cuda" else "float32")
    model = AutoModelForSequenceClassification.from_pretrained(
        scorer.model, revision=scorer.revision, dtype=dtype, trust_remote_code=False
    )
    model = model.to(device).eval()
    pad = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id
    # The score is read at the last token that is not padding, and the model's configuration says which one is.
    model.config.pad_token_id = pad

    def rewards(chats: Sequence[list[int]]) -> list[float]:
        values = [0.0] * len(chats)
        by_length = sorted(range(len(chats)), key=lambda row: len(chats[row]))
        for start in range(0, len(chats), scorer.batch_size):
            rows = by_length[start : start + scorer.batch_size]
            width = max(len(chats[row]) for row in rows)
            ids = torch.full((len(rows), width), pad)  # chats x tokens
            mask = torch.zeros((len(rows), width), dtype=torch.long)
            for i, row in enumerate(rows):
                ids[i, : len(chats[row])] = torch.tensor(chats[row])
                mask[i, : len(chats[row])] = 1
            with torch.inference_mode():
                logits = model(input_ids=ids.to(device), attention_mask=mask.to(device)).logits[:, 0].float().cpu()
            for row, value in zip(rows, logits.tolist(), strict=True):
                values[row] = value
        return values

    return rewards


def _vllm(scorer: RewardScorer, tokenizer: Any, longest: int) -> Rewards:
    """Open the model in vLLM's pooling engine, in this process."""
    if find_spec("vllm") is None:
        raise missing_package("vllm", "cuda", "the vllm engine of the reward scorer")
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    from vllm import LLM, PoolingParams
    from vllm.platforms import current_platform

    model = LLM(
        scorer.model,
        revision=scorer.revision,
        runner="pooling",
        dtype=scorer.dtype,
        max_model_len=longest,
        enforce_eager=current_platform.is_cpu(),  # compiling takes longer on a CPU than all that is scored there
    )
    # vLLM applies a sigmoid to a single label unless it is told not to.
    params = PoolingParams(use_activation=False)

    def rewards(chats: Sequence[list[int]]) -> list[float]:
        if not chats:
            return []
        prompts = [{"prompt_token_ids": list(chat)} for chat in chats]
        outputs = model.classify(prompts, pooling_params=params, use_tqdm=False)
        return [float(output.outputs.probs[0]) for output in outputs]

    return rewards
