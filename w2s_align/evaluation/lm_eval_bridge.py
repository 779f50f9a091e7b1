"""Any task of lm-eval on the same models, with results in this toolkit's records.

Reads the name of a task (or of a group) and a model folder or hub id, adapters included; runs lm-eval's own
``simple_evaluate`` with its transformers backend; returns prompts, responses and scores. Tasks in a folder of YAML
files work offline when their data do (``dataset_path: json`` with ``data_files``).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from w2s_align.errors import UserError, did_you_mean, missing_package
from w2s_align.records import Prompt, Response, Score, to_table


@dataclass(frozen=True)
class LmEvalResult:
    """What lm-eval found.

    Attributes:
        prompts: Rows of ``Prompt.SCHEMA``; the question as its row of data, since what was sent was rendered by
        lm-eval.
        responses: Rows of ``Response.SCHEMA``: the text written, or the likeliest option.
        scores: Rows of ``Score.SCHEMA``; ``scorer`` is lm-eval's metric.
        reported: lm-eval's own aggregate numbers by task.
        version: Version of each task.
    """

    prompts: pa.Table
    responses: pa.Table
    scores: pa.Table
    reported: dict[str, dict[str, Any]]
    version: dict[str, Any]


def run_lm_eval(
    task: str,
    model: str,
    model_name: str,
    *,
    include_path: str | None = None,
    metric: str | None = None,
    shots: int | None = None,
    limit: int | None = None,
    chat: bool = True,
    revision: str | None = None,
    dtype: str = "auto",
    batch_size: int = 8,
    max_tokens: int | None = None,
    seed: int = 0,
) -> LmEvalResult:
    """Run one lm-eval task or group.

    Args:
        task: Name of the task.
        model: Folder or hub id; a folder with an adapter is put on its base model.
        model_name: What the rows call it.
        include_path: Folder of further task files. They can name Python functions, which are run: only files you
        have read.
        metric: ``<metric>`` or ``<metric>,<filter>``. Default: the first of the task.
        shots: Examples; the task's own number by default.
        limit: First so many problems.
        chat: Use the model's chat template.
        revision: Revision of a hub model.
        dtype: Number format; auto is the model's own.
        batch_size: Requests at a time.
        max_tokens: Longest answer; the task's own by default.
        seed: Seed of all of lm-eval's draws.

    Raises:
        UserError: lm-eval is not installed, knows no such task or metric, or cannot load its data.
    """
    try:
        from lm_eval import simple_evaluate
        from lm_eval.tasks import TaskManager
    except ImportError:
        raise missing_package("lm-eval", "lm_eval", "a task of lm-eval") from None

    manager = None
    if include_path is not None:  # reading lm-eval's own thousands of files takes seconds: only where needed
        manager = TaskManager(include_path=include_path, include_defaults=False)
    if manager is None or task not in manager.all_tasks:
        manager = TaskManager(include_path=include_path)
    if task not in manager.all_tasks:
        raise UserError(f"lm-eval has no task {task}.", fix=did_you_mean(task, manager.all_tasks)[:300])
    try:
        found = simple_evaluate(
            model="hf",
            model_args=_model_args(model, revision, dtype),
            tasks=[task],
            num_fewshot=shots,
            limit=limit,
            batch_size=batch_size,
            device=_device(),
            apply_chat_template=chat,
            fewshot_as_multiturn=bool(chat),
            gen_kwargs={"max_gen_toks": max_tokens} if max_tokens else None,
            task_manager=manager,
            bootstrap_iters=0,
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    except (OSError, ConnectionError, ValueError, KeyError) as error:
        raise UserError(
            f"lm-eval cannot run {task}: {type(error).__name__}: {error}",
            fix="Its data come from the hub; on a machine without a network write a task file over local data.",
        ) from error
    if found is None:
        raise RuntimeError("lm-eval returned nothing in its main process")
    return _records(task, dict(found), model_name, metric)


def _model_args(model: str, revision: str | None, dtype: str) -> dict[str, Any]:
    from w2s_align.generation.adapters import ADAPTER_CONFIG, open_adapter

    if (Path(model) / ADAPTER_CONFIG).is_file():
        return {"pretrained": open_adapter(Path(model)).base, "peft": model, "tokenizer": model, "dtype": dtype}
    return {"pretrained": model, "dtype": dtype} | ({"revision": revision} if revision else {})


def _device() -> str:
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def _records(task: str, found: Mapping[str, Any], model_name: str, metric: str | None) -> LmEvalResult:
    prompts: list[Prompt] = []
    responses: list[Response] = []
    scores: list[Score] = []
    for name, samples in found["samples"].items():
        wanted, filtered = _metric(name, samples, metric)
        for row in samples:
            if row["filter"] != filtered:
                continue
            identity = f"{name}/{row['doc_id']}-{row['doc_hash'][:12]}"
            meta = {} if name == task else {"subject": name}
            question = [{"role": "user", "content": _question(row["doc"])}]
            prompts.append(Prompt(identity, question, str(row["target"]), f"lm_eval/{task}", None, meta))
            for sample, text in enumerate(_texts(row)):
                responses.append(Response(identity, sample, model_name, text))
            value = row[wanted]
            number = float(value) if isinstance(value, int | float) else None
            reason = None if number is not None else f"{wanted} is not a number"
            detail = reason or _detail(row)
            scores.append(Score(identity, 0, model_name, f"lm_eval:{wanted}", number, detail, outcome=reason))
    kept = {score.prompt_id for score in scores}
    return LmEvalResult(
        to_table(prompts, Prompt),
        to_table([r for r in responses if r.prompt_id in kept and r.sample == 0], Response),
        to_table(scores, Score),
        {name: dict(values) for name, values in found["results"].items()},
        dict(found.get("versions", {})),
    )


def _metric(name: str, samples: Sequence[Mapping[str, Any]], given: str | None) -> tuple[str, str]:
    """Return the metric and the filter to take."""
    metrics = list(dict.fromkeys(metric for row in samples for metric in row.get("metrics", ())))
    filters = list(dict.fromkeys(row["filter"] for row in samples))
    wanted, _, filtered = (given or metrics[0]).partition(",")
    if wanted not in metrics:
        raise UserError(f"lm-eval's {name} has no metric {wanted}.", fix=did_you_mean(wanted, metrics))
    if filtered and filtered not in filters:
        raise UserError(f"lm-eval's {name} has no filter {filtered}.", fix=did_you_mean(filtered, filters))
    return wanted, filtered or filters[0]


def _texts(row: Mapping[str, Any]) -> list[str]:
    """Return what the model wrote, or the continuation that it finds likeliest."""
    first = row["resps"][0]
    if first and isinstance(first[0], str):
        return list(first)
    arguments = row["arguments"]
    pairs = list(arguments.values()) if isinstance(arguments, Mapping) else list(arguments)
    options = [str(pair["arg_1"] if isinstance(pair, Mapping) else pair[1]) for pair in pairs]
    likelihoods = [
        float(answers[0][0] if isinstance(answers[0], list | tuple) else answers[0]) for answers in row["resps"]
    ]
    return [options[max(range(len(likelihoods)), key=likelihoods.__getitem__)].strip()] if options else []


def _detail(row: Mapping[str, Any]) -> str:
    first = row["filtered_resps"][0] if row["filtered_resps"] else ""
    return first if isinstance(first, str) else ""


def _question(doc: Any) -> str:
    if isinstance(doc, Mapping):
        for column in ("prompt", "question", "problem", "input", "text", "query"):
            if isinstance(doc.get(column), str):
                return str(doc[column])
    return json.dumps(doc, ensure_ascii=False, default=str)
