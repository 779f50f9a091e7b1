"""Generate responses to prompts: the public functions of generation.

Reads prompts and a model; writes ``journal.jsonl`` while it works, and at the end ``data/responses-*.parquet`` and
``generation.json`` (last). Killed at any moment, the same call resumes and ends with the same rows.
"""

from __future__ import annotations

import tempfile
import warnings
from contextlib import ExitStack, closing
from dataclasses import replace
from pathlib import Path

from w2s_align.errors import UserError
from w2s_align.files import storage_errors
from w2s_align.generation.attempt import Attempt, run_job
from w2s_align.generation.engines import FALLBACK, EngineCache, resolve_engine_name
from w2s_align.generation.examples import Examples
from w2s_align.generation.job import Job
from w2s_align.generation.journal import KEPT, Journal
from w2s_align.generation.models import ModelFiles, find_model
from w2s_align.generation.prompts import PromptRows, Prompts
from w2s_align.generation.result import JOURNAL, Generation, load_result
from w2s_align.generation.row_check import ROW_COLUMNS
from w2s_align.generation.settings import Engine, EngineResources, Sampling
from w2s_align.generation.shards import shard_rows
from w2s_align.generation.stats import Progress
from w2s_align.shards import FINISHED, all_finished, shard_folder


def generate(
    model: str | Path,
    prompts: Prompts,
    sampling: Sampling,
    *,
    out: Path | None = None,
    model_name: str | None = None,
    seed: int = 0,
    examples: Examples | None = None,
    engine: Engine | None = None,
    resources: EngineResources | None = None,
    engines: EngineCache | None = None,
    progress: Progress | None = None,
) -> Generation:
    """Let a model respond to prompts, ``sampling.n`` times each.

    The smallest use, with everything in memory::

        result = generate("Qwen/Qwen2.5-0.5B-Instruct", ["What is 2 + 2?"], Sampling(temperature=0, max_tokens=64))
        result.table()["text"]

    With a folder, finished responses are on disk within a second. If the process dies, call again with the same
    arguments: finished responses are not generated again, and the result is the same. In the end the folder holds
    ``data/*.parquet``.

        generate(model, prompts, Sampling(temperature=1, max_tokens=512, n=4), out=Path("responses"), seed=1)

    A server with an OpenAI-compatible API, such as ``vllm serve``, can run the model; only its tokenizer is needed
    here, not its weights::

        generate(model, prompts, sampling, engine=Engine(name="openai"),
                 resources=EngineResources(base_url="http://127.0.0.1:8000/v1"))

    The model's own chat template turns each prompt into token ids, once. The first prompts are checked for known
    mistakes (two BOS tokens, no generation prompt); the ids go to the engine unchanged. Sampling is what ``sampling``
    says and nothing else; of the model's ``generation_config.json`` only the stop tokens are used. The seed of a
    response is computed from ``seed``, the prompt's id and the number of the sample alone
    (:func:`~.job.request_seed`), so neither order nor restarts change it. With half-precision weights the same seed
    can still give another text on another machine or under another load, since floating-point sums depend on their
    order; the distribution is the same.

    Args:
        model: Folder with a Hugging Face model or a LoRA adapter, or a hub id; with ``engine.api: chat``, a server's
            name for it.
        prompts: Texts (one user message each), ``Prompt`` records, a table of ``Prompt.SCHEMA``, or the paths of
            Parquet files with it, which are read in batches. Duplicates get the responses of one prompt.
        sampling: How tokens are drawn.
        out: Folder for progress and result; without it the responses stay in memory, and a crash loses them.
        model_name: Value of the column ``model``; by default ``model``.
        seed: Seed of the whole job.
        examples: Questions with responses that stand before every prompt; see
            :func:`~w2s_align.generation.examples.draw_examples`.
        engine: Which engine, and what else can change a response.
        resources: How much of the machine the engine takes.
        engines: Keeps the engine for the next call. Without it the engine is closed before this function returns.
        progress: Called about twice a second.

    Returns:
        The responses in the order of the prompts, with counts of everything that was dropped, cut or truncated.

    Raises:
        UserError: No prompts; a model without tokenizer, chat template or config; a template that renders wrongly; an
            engine that is not installed or has too little memory; a prompt that is too long, if ``engine.too_long`` is
            ``error``; more failed responses than ``resources.max_failed_share``; a server that cannot be reached,
            refuses the key, does not serve the model or does not know a field; a full disk; an output folder that
            holds another job.
    """
    with ExitStack() as stack:
        folder = Path(out) if out is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        job = _job(model, prompts, sampling, model_name, seed, engine or Engine(), examples)
        result = load_result(job, folder)
        if result is None:
            engines = engines if engines is not None else stack.enter_context(EngineCache())
            result = run_job(job, folder, engines, resources or EngineResources(), progress)
        return replace(result, _table=result.table(), paths=[]) if out is None else result


def generate_shard(
    shard: tuple[int, int],
    model: str | Path,
    prompts: Prompts,
    sampling: Sampling,
    *,
    out: Path,
    model_name: str | None = None,
    seed: int = 0,
    examples: Examples | None = None,
    engine: Engine | None = None,
    resources: EngineResources | None = None,
    engines: EngineCache | None = None,
    progress: Progress | None = None,
) -> bool:
    """Generate one of several shards of :func:`generate`, e.g. on one of several machines that share the folder.

    A shard needs no other shard. When all are finished, ``generate`` with the same arguments collects their responses
    and writes the rows that it would have written alone.

        generate_shard((2, 4), model, prompts, sampling, out=Path("responses"))

    Args:
        shard: Number of the shard, from 1, and number of all shards.
        model: As for :func:`generate`, like all arguments below.
        prompts: The prompts of all shards.
        sampling: How tokens are drawn.
        out: A folder that all shards share.
        model_name: Value of the column ``model``.
        seed: Seed of the whole job.
        examples: What stands before every prompt.
        engine: Which engine, and what else can change a response.
        resources: How much of the machine the engine takes.
        engines: Keeps the engine for the next call.
        progress: Called about twice a second.

    Returns:
        Whether all shards are finished.

    Raises:
        UserError: There is no such shard; another process generates it; or as for :func:`generate`.
    """
    number, count = shard
    if not 1 <= number <= count:
        raise UserError(f"Shard {number} of {count} does not exist.", fix=f"Shards are numbered 1 to {count}.")
    job = _job(model, prompts, sampling, model_name, seed, engine or Engine(), examples)
    if load_result(job, out) is not None:
        return True
    own, rows = shard_folder(out, number, count), shard_rows(job, out, number, count)
    with ExitStack() as stack:
        engines = engines if engines is not None else stack.enter_context(EngineCache())
        journal = Journal(own / JOURNAL, job.identity, job.rows, only=rows, required=ROW_COLUMNS)
        stack.enter_context(closing(journal))
        Attempt(job, journal, engines, resources or EngineResources(), progress).complete()
    with storage_errors(own, KEPT):
        (own / FINISHED).touch()
    return all_finished(out, count)


def _job(
    model: str | Path,
    prompts: Prompts,
    sampling: Sampling,
    model_name: str | None,
    seed: int,
    engine: Engine,
    examples: Examples | None,
) -> Job:
    name = resolve_engine_name(engine.name)
    if engine.name == "auto" and name == "transformers":
        warnings.warn(FALLBACK, stacklevel=3)
    engine = engine.model_copy(update={"name": name})
    rows = PromptRows(prompts, examples)
    if engine.api == "chat":
        files = ModelFiles(str(model), Path(), {}, {})  # only its name on the server is known
    else:
        files = find_model(model, engine.revision, weights=name != "openai")
    return Job(files, model_name or str(model), rows, sampling, engine, seed)
