"""Options of generation, in three groups: how tokens are drawn, what else can change an answer, and what cannot.

``Sampling`` and ``Engine`` belong to the identity of a set of responses; ``EngineResources`` only says how much of the
machine is used. Importing this file loads no engine.
"""

from __future__ import annotations

from typing import Any, Literal, TypeAlias

from pydantic import Field, field_validator, model_validator

from w2s_align.records import Settings

EngineName: TypeAlias = Literal["vllm", "transformers"]


class Sampling(Settings):
    """How tokens are drawn. Nothing is taken from ``generation_config.json``: what is not set here is off."""

    temperature: float = Field(ge=0)
    """0 is greedy decoding; 1 draws from the model's own distribution."""
    max_tokens: int = Field(ge=1)
    """Longest answer, in tokens of the model, end of turn included."""
    n: int = Field(default=1, ge=1)
    """Answers per prompt."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw only from the most likely tokens that together have this probability; 1 is off."""
    top_k: int = Field(default=0, ge=0)
    """Draw only from this many most likely tokens; 0 is off."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Draw only from tokens at least this likely, as a share of the most likely one's probability; 0 is off."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Divide positive (multiply negative) logits of tokens seen in the prompt or answer; 1 is off."""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtract from the logits of tokens that are in the answer already; 0 is off."""
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtract from the logits of a token once for each time it is in the answer; 0 is off."""
    stop: list[str] = []
    """Texts that end an answer; the answer does not contain them. The model's own end of turn always ends it."""
    logprobs: bool = False
    """Record the log-probability of each answer under the model (before penalties and temperature)."""

    @field_validator("stop")
    @classmethod
    def _stop_is_not_empty(cls, stop: list[str]) -> list[str]:
        if "" in stop:
            raise ValueError("an empty stop text would end every answer at once; leave it out")
        return stop

    @model_validator(mode="after")
    def _samples_differ(self) -> Sampling:
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"n is {self.n} but temperature 0 gives {self.n} equal answers; set temperature or n: 1")
        return self


class Engine(Settings):
    """What writes the answers, beyond sampling. Every field here can change an answer."""

    name: Literal["auto"] | EngineName = "auto"
    """``auto``: vllm where it is installed, else transformers (slower); which one it was stands in the result."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format of the weights. ``auto``: as the model is stored (float32 stays float32, on every device)."""
    max_model_len: int | None = Field(default=None, ge=2)
    """Context in tokens, prompt and answer together; by default what the model was made for."""
    quantization: str | None = None
    """vLLM's name of a quantization to apply while loading, e.g. ``fp8``; a quantized model says so by itself."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""
    system_prompt: str | None = None
    """System turn put before every prompt that does not bring its own."""
    chat_template_kwargs: dict[str, Any] = {}
    """Values for the model's chat template, e.g. ``{enable_thinking: false}``."""
    too_long: Literal["drop", "error", "cut_left", "cut_right"] = "drop"
    """A prompt that does not fit: leave it out and count it, stop, or cut its longest turn on that side."""
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt. By default one that leaves room for one token (when cutting: for ``max_tokens``, up to half)."""
    audit: Literal["refuse", "warn"] = "refuse"
    """When the first rendered prompts look wrong (two BOS, no generation prompt, not a prefix of prompt + answer)."""


class EngineResources(Settings):
    """How much of the machine an engine takes. Nothing here is meant to change an answer.

    Sizes of batches and kernels change the order of floating-point sums, so that with half-precision weights single
    tokens may differ between two settings; the distribution that is drawn from stays the same.
    """

    tensor_parallel_size: int = Field(default=1, ge=1)
    """Devices that share each layer (vllm)."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """Groups of devices that hold consecutive layers (vllm)."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that vllm takes."""
    kv_cache_gib: float | None = Field(default=None, gt=0)
    """Memory for attention keys and values (vllm). By default what is left of a GPU's share; on a CPU up to 4 GiB."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Answers that vllm writes at the same time; vllm's own default where not given."""
    batch_size: int = Field(default=32, ge=1)
    """Answers that the transformers engine writes at the same time."""
    enforce_eager: bool | None = None
    """Do not compile or capture graphs (vllm). By default off on a GPU, on for a CPU, where compiling takes long."""
    enable_prefix_caching: bool | None = None
    """Keep the keys and values of common prompt beginnings (vllm). By default vllm's choice on a GPU, off on a CPU."""
