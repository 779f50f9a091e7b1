"""Options of generation, in three groups: how tokens are drawn, what else can change a response, and what cannot.

``Sampling`` and ``Engine`` belong to the identity of a set of responses; ``EngineResources`` only says how much of the
machine is used. Importing this file loads no engine.
"""

from __future__ import annotations

import os
import re
from typing import Any, Literal, TypeAlias
from urllib.parse import urlsplit

from pydantic import Field, SerializerFunctionWrapHandler, field_validator, model_serializer, model_validator
from pydantic_core import PydanticCustomError

from w2s_align.errors import UserError, did_you_mean
from w2s_align.families.fusion import Fusion
from w2s_align.records import SECRET, Settings

EngineName: TypeAlias = Literal["vllm", "transformers", "openai", "ray"]

SERVER_FIELDS = (
    *("temperature", "max_tokens", "top_p", "top_k", "min_p", "repetition_penalty", "presence_penalty"),
    *("frequency_penalty", "stop", "stop_token_ids", "seed", "n", "logprobs"),
)
"""Fields of a request to a server; ``Engine.server_fields`` can rename or leave out each."""


class Sampling(Settings):
    """How tokens are drawn. Nothing is taken from ``generation_config.json``; what is not set here is off."""

    temperature: float = Field(ge=0)
    """0 is greedy decoding; 1 draws from the model's own distribution."""
    max_tokens: int = Field(ge=1)
    """Longest response in tokens, end of turn included."""
    n: int = Field(default=1, ge=1)
    """Responses per prompt."""
    top_p: float = Field(default=1.0, gt=0, le=1)
    """Draw only from the most likely tokens with this total probability; 1 is off."""
    top_k: int = Field(default=0, ge=0)
    """Draw only from this many most likely tokens; 0 is off."""
    min_p: float = Field(default=0.0, ge=0, le=1)
    """Draw only from tokens at least this likely, as a share of the most likely one's probability; 0 is off."""
    repetition_penalty: float = Field(default=1.0, gt=0)
    """Divide positive (multiply negative) logits of tokens seen in the prompt or response; 1 is off."""
    presence_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtract this from the logits of tokens that are already in the response; 0 is off."""
    frequency_penalty: float = Field(default=0.0, ge=-2, le=2)
    """Subtract this from the logit of a token for each time it is already in the response; 0 is off."""
    stop: list[str] = []
    """Texts that end a response and are not part of it. The model's own end of turn always ends it."""
    logprobs: bool = False
    """Record the log-probability of each response under the model (before penalties and temperature)."""

    @field_validator("stop")
    @classmethod
    def _stop_is_not_empty(cls, stop: list[str]) -> list[str]:
        if "" in stop:
            raise ValueError("an empty stop text would end every response at once; leave it out")
        return stop

    @model_validator(mode="after")
    def _samples_differ(self) -> Sampling:
        if self.n > 1 and self.temperature == 0:
            raise ValueError(f"n is {self.n}, but at temperature 0 all responses are equal; set temperature or n: 1")
        return self


class Engine(Settings):
    """What generates the responses. Every field here can change a response."""

    name: Literal["auto"] | EngineName = "auto"
    """``auto``: vllm if installed, else transformers (slower). ``openai``: any OpenAI-compatible server, at
    ``resources.base_url``. ``ray``: replicas of vllm on a Ray cluster."""
    api: Literal["completions", "chat"] = "completions"
    """What is sent to a server. ``completions``: token ids, rendered and checked here with the tokenizer of ``model``.
    ``chat``: messages, for a model without a local tokenizer; the server's template renders them, unchecked."""
    served_model: str | None = None
    """The server's name for the model, if it is not ``model``."""
    server_fields: dict[str, str | None] = {}
    """Fields that the server knows by another name (``{max_tokens: max_completion_tokens}``) or not at all
    (``{top_k: null, min_p: null}``). By default every sampling option is sent, including disabled ones."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Dtype of the weights. ``auto``: as stored (float32 stays float32 on every device)."""
    max_model_len: int | None = Field(default=None, ge=2)
    """Context length in tokens, prompt and response together. Default: the model's own."""
    quantization: str | None = None
    """Quantization that vLLM applies while loading, e.g. ``fp8``; a quantized model needs no option."""
    kv_cache_dtype: Literal["auto", "bfloat16", "float16", "fp8", "fp8_e4m3", "fp8_e5m2"] = "auto"
    """Dtype of attention keys and values (vllm): fp8 fits twice as much, with coarser rounding."""
    revision: str | None = None
    """Branch, tag or commit of a model on the hub."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Only for models whose code you have read."""
    system_prompt: str | None = None
    """System message for every prompt that has none of its own."""
    chat_template_kwargs: dict[str, Any] = {}
    """Variables for the model's chat template, e.g. ``{enable_thinking: false}``."""
    prefill: str = ""
    """Start of every response, as if the model had written it; the recorded text includes it."""
    thinking: Literal["keep", "strip", "separate"] = "keep"
    """What happens to reasoning before the final text: ``keep`` it in the text, with its tags; ``strip`` it; or
    ``separate`` it into the column ``reasoning``."""
    think_tags: tuple[str, str] = ("<think>", "</think>")
    """Opening and closing tag of the reasoning."""
    too_long: Literal["drop", "error", "cut_left", "cut_right"] = "drop"
    """What happens to a prompt that is too long: drop and count it, stop, or cut its longest message on that side."""
    max_prompt_tokens: int | None = Field(default=None, ge=1)
    """Longest prompt in tokens. Default: the context less one token (when cutting: less ``max_tokens``, at least half
    of it)."""
    audit: Literal["refuse", "warn"] = "refuse"
    """What to do if the first rendered prompts look wrong (two BOS, no generation prompt, not a prefix of prompt +
    response)."""

    fusion: Fusion | None = None
    """Draw tokens from the model's logits shifted by contrasts of other models of its vocabulary, with the
    transformers engine: {contrasts: [{plus: $weak, minus: $weaker}]} (docs/methods/decoding_time_fusion.md)."""

    @model_serializer(mode="wrap")
    def _without_what_came_later(self, dump: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Leave out fusion where there is none, so that answers of before it keep their keys."""
        found: dict[str, Any] = dump(self)
        if found.get("fusion") is None:
            found.pop("fusion", None)
        return found

    @model_validator(mode="after")
    def _fusion_has_its_engine(self) -> Engine:
        if self.fusion is not None and self.name != "transformers":
            raise ValueError(f"fusion needs the transformers engine, and name is {self.name}; set name: transformers")
        return self

    @model_validator(mode="after")
    def _what_only_a_server_has(self) -> Engine:
        # Compared with defaults and not with what was given: an Engine read from JSON has every field set.
        only = ("api", "served_model", "server_fields")
        given = {name for name in only if getattr(self, name) != type(self).model_fields[name].default}
        if given and self.name != "openai":
            raise ValueError(f"{', '.join(sorted(given))}: only for a server; set name: openai")
        if self.api == "chat" and self.prefill:
            raise ValueError("prefill needs api: completions; with api: chat, the server renders the prompt")
        return self

    @field_validator("server_fields")
    @classmethod
    def _fields_that_are_sent(cls, fields: dict[str, str | None]) -> dict[str, str | None]:
        for field, name in fields.items():
            if field not in SERVER_FIELDS:
                raise ValueError(f"{field} is not a request field. {did_you_mean(field, SERVER_FIELDS)}")
            if name is None and field == "max_tokens":
                raise ValueError("max_tokens cannot be left out; responses would have no limit")
        return fields


class Price(Settings):
    """Prices, in any currency."""

    gpu_hour: float = Field(default=0.0, ge=0)
    """Price of one GPU for an hour."""
    million_prompt_tokens: float = Field(default=0.0, ge=0)
    """Price of a million prompt tokens."""
    million_completion_tokens: float = Field(default=0.0, ge=0)
    """Price of a million generated tokens."""

    def of(self, gpu_seconds: float, prompt_tokens: int, completion_tokens: int) -> float:
        """Return the price of a generation.

        Args:
            gpu_seconds: GPUs times seconds.
            prompt_tokens: Prompt lengths, summed over responses.
            completion_tokens: Response lengths, summed.
        """
        tokens = self.million_prompt_tokens * prompt_tokens + self.million_completion_tokens * completion_tokens
        return round(self.gpu_hour * gpu_seconds / 3600 + tokens / 1e6, 6)


class EngineResources(Settings):
    """How much of the machine an engine uses. Nothing here is meant to change a response.

    Batch sizes and kernels change the order of floating-point sums, so that with half-precision weights single tokens
    may differ between two settings; the distribution stays the same.
    """

    tensor_parallel_size: int = Field(default=1, ge=1)
    """GPUs that share each layer (vllm)."""
    pipeline_parallel_size: int = Field(default=1, ge=1)
    """Groups of GPUs that hold consecutive layers (vllm)."""
    data_parallel_size: int = Field(default=1, ge=1)
    """Engines on this machine, each in its own process with its own GPUs (or CPU cores) and its share of the prompts
    (vllm, transformers)."""
    gpu_memory_utilization: float = Field(default=0.9, gt=0, le=1)
    """Share of a GPU's memory that vllm uses."""
    kv_cache_gib: float | None = Field(default=None, gt=0)
    """Memory for attention keys and values (vllm). Default: the rest of a GPU's share; on a CPU up to 4 GiB."""
    max_num_seqs: int | None = Field(default=None, ge=1)
    """Concurrent responses (vllm). Default: vllm's own."""
    max_num_batched_tokens: int | None = Field(default=None, ge=1)
    """Tokens per engine step, prompts and responses together (vllm). Default: vllm's own."""
    cpu_offload_gib: float = Field(default=0.0, ge=0)
    """Weights per GPU that are kept in the machine's memory and copied when needed (vllm); slow."""
    enable_expert_parallel: bool = False
    """Distribute whole experts of a mixture of experts over the GPUs instead of splitting each one (vllm)."""
    batch_size: int = Field(default=32, ge=1)
    """Concurrent responses (transformers)."""
    enforce_eager: bool | None = None
    """Do not compile or capture graphs (vllm). Default: false on a GPU; true on a CPU, where compiling takes long."""
    enable_prefix_caching: bool | None = None
    """Reuse the keys and values of common prompt prefixes (vllm). Default: vllm's own on a GPU, false on a CPU."""
    ray_address: str | None = None
    """Address of the Ray cluster (ray): host:port of its head node, or ``auto`` on one of its nodes. Default: the
    environment variable RAY_ADDRESS, else a cluster on this machine for this run."""
    replicas: int | None = Field(default=None, ge=1)
    """Engines on the Ray cluster (ray). Default: as many as fit; 1 without GPUs."""
    base_url: str | None = None
    """Address of the server (openai), e.g. ``http://127.0.0.1:8000/v1``. Default: the environment variable
    OPENAI_BASE_URL."""
    api_key_env: str | None = None
    """Environment variable that holds the server's API key (openai). Default: no key is sent."""
    concurrency: int = Field(default=128, ge=1)
    """Concurrent requests to the server (openai)."""
    request_timeout: float | None = Field(default=None, gt=0)
    """Time limit of a request in seconds (openai). Default: 600, or 0.25 per token of ``max_tokens`` if that is
    more."""
    retries: int = Field(default=8, ge=0)
    """Retries after a transient failure: HTTP 408, 409, 425, 429, 5xx, a lost connection, a broken reply; at most 2
    after time-outs. Exponential backoff from 1 to 60 seconds; Retry-After is honored (openai)."""
    max_failed_share: float = Field(default=0.01, ge=0, le=1)
    """Share of responses that may fail for good and are recorded as failed. Beyond it the step stops; the next run
    requests only what is missing."""
    price: Price | None = None
    """Prices, to report the cost: ``{gpu_hour: 2.5}``, or for a server ``{million_prompt_tokens: 0.15,
    million_completion_tokens: 0.6}``."""

    @property
    def devices(self) -> int:
        """Devices of this machine that all engines use together."""
        return self.data_parallel_size * self.tensor_parallel_size * self.pipeline_parallel_size

    @field_validator("base_url")
    @classmethod
    def _address(cls, url: str | None) -> str | None:
        try:
            return url if url is None else checked_address(url)
        except ValueError as error:
            raise PydanticCustomError(SECRET, "{why}", {"why": str(error)}) from None

    @field_validator("api_key_env")
    @classmethod
    def _name_of_a_variable(cls, name: str | None) -> str | None:
        if name is None or name in os.environ or _VARIABLE.fullmatch(name):
            return name
        raise PydanticCustomError(
            SECRET,
            "it is the name of an environment variable, such as OPENAI_API_KEY, and never the key itself: a key would "
            "be stored with every run",
        )


_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
"""Names of environment variables as they are written; keys have small letters."""


def checked_address(url: str) -> str:
    """Return the address of a server, if no secret stands in it.

    Raises:
        ValueError: It is no address, or holds a password or a query. The message does not repeat it.
    """
    parts = urlsplit(url)
    if parts.username or parts.password or "@" in parts.netloc:
        raise ValueError("the address must not contain a user or a password; give the key by api_key_env")
    if parts.query or parts.fragment:
        raise ValueError(
            "the address must not have a query: a key in it would be stored with every run; use api_key_env"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError("this is not the address of a server; write e.g. http://127.0.0.1:8000/v1")
    return url


def server_address(resources: EngineResources) -> str:
    """Return the address of the server's API, with ``/v1`` added where only a host is given.

    Raises:
        UserError: Neither ``resources.base_url`` nor the environment variable OPENAI_BASE_URL gives one.
    """
    url = resources.base_url or os.environ.get("OPENAI_BASE_URL")
    if not url:
        raise UserError(
            "The openai engine needs the address of a server.",
            fix="Set resources.base_url, e.g. http://127.0.0.1:8000/v1, or the environment variable OPENAI_BASE_URL.",
        )
    try:
        url = checked_address(url).rstrip("/")
    except ValueError as error:
        raise UserError(f"OPENAI_BASE_URL cannot be used: {error}.") from None
    return url if urlsplit(url).path else f"{url}/v1"
