"""Let a model answer prompts: the public functions of generation.

Reads prompts and a model; writes ``journal.jsonl`` while it works, and at the end ``data/responses-*.parquet`` and
``generation.json`` (last). Killed at any moment, the same call goes on and ends with the same rows.
"""

from __future__ import annotations

import tempfile
import warnings
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from w2s_align.errors import UserError
from w2s_align.generation.engines import FALLBACK, EngineCache, resolve_engine_name
from w2s_align.generation.job import Job
from w2s_align.generation.models import ModelFiles, find_model
from w2s_align.generation.prompts import PromptRows, Prompts
from w2s_align.generation.result import Generation
from w2s_align.generation.settings import Engine, EngineResources, Sampling
from w2s_align.generation.shards import make_part
from w2s_align.generation.stats import Progress
from w2s_align.shards import all_finished


def generate(
    model: str | Path,
    prompts: Prompts,
    sampling: Sampling,
    *,
    out: Path | None = None,
    model_name: str | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    resources: EngineResources | None = None,
    engines: EngineCache | None = None,
    progress: Progress | None = None,
) -> Generation:
    """Let a model answer prompts, ``sampling.n`` times each.

    The smallest use, with everything in memory::

        result = generate("Qwen/Qwen2.5-0.5B-Instruct", ["What is 2 + 2?"], Sampling(temperature=0, max_tokens=64))
        result.table()["text"]

    With a folder, finished answers are on disk within a second. If the process dies, call again with the same
    arguments: what is finished is not made again, and the result is the same. When all is done, the folder holds
    ``data/*.parquet``.

        generate(model, prompts, Sampling(temperature=1, max_tokens=512, n=4), out=Path("answers"), seed=1)

    A server with an OpenAI-compatible API, such as ``vllm serve``, does the same; the tokenizer of ``model`` is used
    here, its weights are not needed::

        generate(model, prompts, sampling, engine=Engine(name="openai"),
                 resources=EngineResources(base_url="http://127.0.0.1:8000/v1"))

    What is done to a prompt: the model's own chat template turns it into token ids, once; the first ones are checked
    for the known mistakes (two BOS tokens, no generation prompt); the ids go to the engine as they are. Sampling is
    what ``sampling`` says and nothing else; the model's ``generation_config.json`` is only asked which tokens end an
    answer. The seed of an answer is computed from ``seed``, the prompt's id and the number of the sample alone
    (:func:`request_seed`), so neither order nor restarts change it. With half-precision weights the same seed can
    still give another text on another machine or under another load, since floating-point sums depend on the order;
    the distribution is the same.

    Args:
        model: Folder with a Hugging Face model or a LoRA adapter, or a hub id; with ``engine.api: chat``, a server's
            name for it.
        prompts: Texts (one user turn each), ``Prompt`` records, a table of ``Prompt.SCHEMA``, or the paths of Parquet
            files with it, which are read in batches. A prompt that is given twice is answered once.
        sampling: How tokens are drawn.
        out: Folder for progress and result; without it the answers stay in memory and a crash loses them.
        model_name: What the column ``model`` says; by default ``model``.
        seed: Seed of the whole job.
        engine: Which engine and what else can change answers.
        resources: How much of the machine the engine takes.
        engines: Keeps the engine for a next call. Without it the engine is closed before this function returns.
        progress: Called about twice a second.

    Returns:
        The answers in the order of the prompts, with counts of everything that was dropped, cut or truncated.

    Raises:
        UserError: No prompts; a model without tokenizer, chat template or config; a template that renders wrongly; an
            engine that is not installed or has too little memory; a prompt that is too long, if ``engine.too_long`` is
            ``error``; more failed answers than ``resources.max_failed_share``; a server that is not there, does not
            take the key, does not serve the model or does not know a field; a full disk; an output folder that holds
            another job.
    """
    with ExitStack() as stack:
        folder = Path(out) if out is not None else Path(stack.enter_context(tempfile.TemporaryDirectory()))
        job = _job(model, prompts, sampling, model_name, seed, engine or Engine())
        result = job.finished(folder)
        if result is None:
            engines = engines if engines is not None else stack.enter_context(EngineCache())
            result = job.run(folder, engines, resources or EngineResources(), progress)
        return replace(result, _table=result.table(), paths=[]) if out is None else result


def generate_part(
    part: tuple[int, int],
    model: str | Path,
    prompts: Prompts,
    sampling: Sampling,
    *,
    out: Path,
    model_name: str | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    resources: EngineResources | None = None,
    engines: EngineCache | None = None,
    progress: Progress | None = None,
) -> bool:
    """Make one of several parts of :func:`generate`, e.g. on one of several machines that see the same folder.

    A part needs nothing of the others. When all are there, ``generate`` with the same arguments takes their answers
    and ends with the rows that it would have made alone.

        generate_part((2, 4), model, prompts, sampling, out=Path("answers"))

    Args:
        part: Number of the part, from 1, and number of all parts.
        model: This, and all that follows, is as for :func:`generate`; ``out`` is a folder that all parts share.

    Returns:
        Whether all parts are there.

    Raises:
        UserError: As of :func:`generate`; or another process makes the same part.
    """
    number, count = part
    if not 1 <= number <= count:
        raise UserError(f"There is no part {number} of {count}.", fix=f"Parts are 1 to {count}.")
    job = _job(model, prompts, sampling, model_name, seed, engine or Engine())
    if job.finished(out) is not None:
        return True
    with ExitStack() as stack:
        engines = engines if engines is not None else stack.enter_context(EngineCache())
        make_part(job, out, number, count, engines, resources or EngineResources(), progress)
    return all_finished(out, count)


def _job(
    model: str | Path, prompts: Prompts, sampling: Sampling, model_name: str | None, seed: int, engine: Engine
) -> Job:
    name = resolve_engine_name(engine.name)
    if engine.name == "auto" and name == "transformers":
        warnings.warn(FALLBACK, stacklevel=3)
    engine = engine.model_copy(update={"name": name})
    rows = PromptRows(prompts)
    if engine.api == "chat":
        files = ModelFiles(str(model), Path(), {}, {})  # a name on a server is all that is known
    else:
        files = find_model(model, engine.revision, weights=name != "openai")
    return Job(files, model_name or str(model), rows, sampling, engine, seed)
