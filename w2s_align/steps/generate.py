"""generate: a model responds to prompts.

Reads prompts (and the model of another step); writes data/responses-*.parquet (records.Response).
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import Field, ValidationError, model_validator

from w2s_align.artifacts.identity import model_identity, model_name
from w2s_align.artifacts.keys import digest
from w2s_align.generation.settings import Engine, EngineResources, Sampling
from w2s_align.recipe.schema import MODEL, ArtifactType, Machines, PromptsRef, Reads, Reference, Resources, Seed
from w2s_align.steps.examples import ExampleOptions
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    from w2s_align.generation import Generation


DRAWN = {"temperature", "top_p", "top_k", "min_p"}
"""Options of sampling that say from which distribution tokens are drawn; how many and how long is not among them."""


class GenerateResources(EngineResources, Resources):
    """What a generation may use of the machine."""

    machines: int | None = Field(None, ge=1)
    """Machines that share the prompts when the recipe is launched on a cluster. Default: `w2s launch --nodes`; one for
    the responses of an evaluation."""

    @model_validator(mode="after")
    def _gpus_are_enough(self) -> GenerateResources:
        if self.gpus and self.gpus < self.devices:
            raise ValueError(
                f"gpus is {self.gpus}, but data_parallel_size x tensor_parallel_size x pipeline_parallel_size is "
                f"{self.devices}; raise gpus or leave it out"
            )
        return self


class Generate(Step):
    """Let a model respond to prompts, with vLLM, transformers or any OpenAI-compatible server."""

    kind: Literal["generate"] = "generate"
    model: Annotated[str, Reads(("model",), literal=True, named=True)]
    """The model: a hub id or a folder (of a model or a LoRA adapter), or $step; with `engine: {api: chat}`, its name
    on the server."""
    prompts: PromptsRef
    """Prompts that it responds to."""
    seed: Seed | None = None
    """Seed of this step; the seed of a response depends only on it, the prompt and the number of the sample. Default:
    made of the recipe's seed, the model and how it samples, so that the two sides of pairs draw different random
    numbers (with the same ones, two models often write the same text); at temperature 0, which draws none, the
    recipe's."""
    sampling: Sampling
    """How tokens are drawn. Nothing is taken from the model's own defaults."""
    examples: ExampleOptions | None = None
    """Examples before every prompt, as earlier turns: {from: $weak_answers, n: 4, seed: 1} draws responses of a step,
    {file: examples.jsonl} takes rows of a file."""
    engine: Engine = Engine()
    """What else can change a response: engine, dtype, context length, chat template options."""
    resources: GenerateResources = GenerateResources()
    """What the step may use of the machine; does not change what it writes."""

    writes: ClassVar[ArtifactType] = "responses"
    has_shards: ClassVar[bool] = True

    @classmethod
    def default_seed(cls, seed: int, options: Mapping[str, Any]) -> int:
        """Give each model, and each way to sample from it, random numbers of its own; greedy decoding draws none."""
        model = options.get("model")
        try:
            sampling = Sampling.model_validate(options.get("sampling"))
        except ValidationError:  # said when the step is checked
            return seed
        if sampling.temperature == 0 or not isinstance(model, str):
            return seed
        name = model if model.startswith("$") else model_name(model)
        return int(digest({"seed": seed, "model": name, **sampling.model_dump(include=DRAWN)})[:8], 16)

    def content(self) -> dict[str, Any]:
        """Leave out examples that are not there, so that older responses keep their keys."""
        return {name: value for name, value in super().content().items() if name != "examples" or value is not None}

    def references(self) -> Iterator[Reference]:
        """Yield the model, the prompts, the step that examples come from, and the models of a fusion."""
        yield from super().references()
        for place, model in self._fused().items():
            yield Reference(tuple(place.split(".")), model, MODEL)
        yield from self.examples.references() if self.examples is not None else ()

    def check(self) -> None:
        """Refuse a server without an address, and examples that cannot be shown.

        Raises:
            UserError: See above.
        """
        if self.examples is not None:
            self.examples.check(self.sampling.stop)
        if self.engine.name == "openai":
            from w2s_align.generation.settings import server_address

            server_address(self.resources)

    def _fused(self) -> dict[str, str]:
        """Return the models of a fusion by the place that names them."""
        fusion = self.engine.fusion
        return {} if fusion is None else {f"engine.fusion.{place}": model for place, model in fusion.models().items()}

    def claims(self) -> Resources:
        """Return the GPUs of all engines; one core and no GPU where a server has the model."""
        if self.engine.name == "openai":
            return Resources(cpus=self.resources.cpus or 1, gpus=0)
        if self.engine.name == "ray":
            if self.resources.ray_address or os.environ.get("RAY_ADDRESS"):
                return Resources(cpus=self.resources.cpus or 1, gpus=0)  # the cluster assigns its own
            return Resources(cpus=self.resources.cpus, gpus=self.resources.gpus)
        gpus = self.resources.devices if self.resources.gpus is None else self.resources.gpus
        return Resources(cpus=self.resources.cpus, gpus=gpus)

    def machines(self, nodes: int) -> Machines:
        """Share the prompts among machines, unless a server or a Ray cluster has machines of its own."""
        shared = self.engine.name not in ("openai", "ray")
        return Machines(shards=self.resources.machines or nodes) if shared else Machines()

    def identity(self) -> dict[str, Any]:
        """Return the engine with its version, and the content of a model that no step made."""
        from w2s_align.generation import engine_version, resolve_engine_name

        name = resolve_engine_name(self.engine.name)
        found: dict[str, Any] = {"engine": name, "version": engine_version(name)}
        if not self.model.startswith("$") and self.engine.api != "chat":  # with it, only the model's name is known
            found["model"] = model_identity(self.model, self.engine.revision)
        found |= {place: model_identity(model) for place, model in self._fused().items() if not model.startswith("$")}
        return found | (self.examples.identity() if self.examples is not None else {})

    def process(self) -> str | None:
        """Share a process with other generations: importing an engine takes longer than a small model's work."""
        return "generate"

    def run(self, work: Work) -> None:
        """Generate what an earlier attempt has not finished."""
        from w2s_align.generation import FALLBACK, generate, generate_shard

        make = generate if work.shard is None else partial(generate_shard, work.shard)
        examples = self.examples.load(work) if self.examples is not None else None
        if examples is not None:
            work.result["examples"] = [asdict(example) for example in examples.shown]
        result = make(
            work.model("model", self.model),
            work.inputs["prompts"].files(),
            self.sampling,
            out=work.out,
            model_name=work.sources.get("model", model_name(self.model)),
            seed=self.seed or 0,
            examples=examples,
            engine=self._engine_here(work),
            resources=self.resources,
            engines=shared_engines(),
            progress=work.progress,
        )
        if isinstance(result, bool):  # a shard has no result of its own
            return
        summary = result.to_json()
        dropped = {reason: len(ids) for reason, ids in result.dropped.items()}
        work.counts.update(rows_in=result.prompts, kept=result.rows, dropped=dropped, **result.finish_reasons)
        for ids in ("dropped", "cut", "unknown_tokens", "duplicated"):
            found = summary.pop(ids)  # the ids themselves are in generation.json
            if ids != "dropped" and found:
                work.counts[ids] = len(found)
        work.warnings += summary.pop("warnings")
        if self.engine.name == "auto" and summary["engine"]["name"] == "transformers":
            work.warnings.append(FALLBACK)
        if result.truncated_share > 0.05:
            work.warnings.append(f"{result.truncated_share:.0%} of the responses were cut {self._where_cut(result)}")
        if result.reasoning_counts:
            work.counts["reasoning"] = result.reasoning_counts
        if cut_off := result.reasoning_counts.get("cut_off"):
            work.warnings.append(
                f"In {cut_off} of {sum(result.reasoning_counts.values())} responses the reasoning was cut off, and no "
                "final text follows; raise sampling.max_tokens."
            )
        if result.failed:
            most = max(result.failed, key=lambda reason: result.failed[reason])
            work.warnings.append(
                f"{sum(result.failed.values())} of {result.rows} responses failed for good and have no text; "
                f"most often: {most}"
            )
        work.result.update(
            summary,
            tokens_per_second=round(result.tokens_per_second, 1),
            truncated_share=result.truncated_share,
        )

    def _engine_here(self, work: Work) -> Engine:
        """Return the engine with the folders of a fusion's models."""
        if self.engine.fusion is None:
            return self.engine
        here = {
            place.removeprefix("engine.fusion."): work.model(place, model) for place, model in self._fused().items()
        }
        return self.engine.model_copy(update={"fusion": self.engine.fusion.with_models(here)})

    def _where_cut(self, result: Generation) -> str:
        context = result.engine["max_model_len"]
        if context is not None and result.prompt_tokens / result.rows + self.sampling.max_tokens > context:
            return f"at the end of the model's context of {context} tokens."
        return f"at {self.sampling.max_tokens} tokens; raise sampling.max_tokens."


_cache: Any = None


def shared_engines() -> Any:
    """Return the engine cache of this process: the next job for the same model finds its engine running."""
    global _cache
    if _cache is None:
        from w2s_align.generation import EngineCache

        _cache = EngineCache()
        atexit.register(_cache.close)
    return _cache
