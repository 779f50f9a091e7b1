"""A rehearsal: a recipe turned into the same recipe with stand-in models and a few rows, and run like any other.

Reads a recipe; writes rows that stand in for hub datasets below the runs folder. Nothing here trains or generates: the
changed recipe goes through the same loading, planning and execution, the same steps, chat templates, TRL arguments and
launchers as the real one. What had to be changed is listed, and so is what a rehearsal cannot check.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from rich.markup import escape

from w2s_align.artifacts.identity import looks_local
from w2s_align.evaluation.task import Task, TaskData, answers_needed
from w2s_align.families import own_family
from w2s_align.machine import Machine, this_machine
from w2s_align.recipe import Document, Recipe, StepConfig, load
from w2s_align.rehearsal.rows import RowFormat, row_format, stand_in_rows
from w2s_align.steps.catalogue import CATALOGUE

ROWS = 16
"""Prompts or pairs that are left of each source."""
ITEMS = 48
"""Items that are left of each source: both halves of them have both classes."""
HELD_OUT = 2
"""Rows that a training holds out where the recipe holds out a number of them."""
TOKENS = 64
"""Longest answer of a stand-in, in tokens; one of its usual answers has about 50."""
STEPS = 3
"""Optimiser steps of each training."""
LEARNING_RATE = 1e-3
"""Learning rate of each training: at the published ones, three steps would not show in weights stored as bfloat16."""
MEMORY = 4 * 1024**3
"""Bytes of memory that a core of this machine must have for a step of its own."""
ROLLOUT_TOKENS = 16
"""Tokens of the responses that a training lets its model write: they are written token by token in every step."""
PROCESSES = 2
"""Processes of a training that the recipe launches on several GPUs."""

Raw = dict[str, Any]

UNCHECKED = (
    "whether the real models exist, may be downloaded, and fit into memory (`w2s plan` estimates that)",
    "the real tokenizers (a stand-in reads bytes), and the real chat templates where they are not said to be here",
    "the data of hub datasets and benchmarks, and the columns that they really have",
    "GPU kernels, quantization, several machines, servers and trackers",
    "what comes out: answers of stand-ins mean nothing, and so do the verdict and the audit",
)
"""What no rehearsal can check."""


@dataclass
class Rehearsal:
    """A recipe that is ready to be rehearsed.

    Attributes:
        recipe: The changed recipe.
        models: Models that are stood in for.
        changes: What else was changed, in words, each once.
    """

    recipe: Recipe
    models: list[str]
    changes: list[str]


def rehearsal(document: Document, folder: Path) -> Rehearsal:
    """Turn a recipe into one that this machine can run in minutes.

    Args:
        document: The recipe as it was read, overrides applied.
        folder: Where rows go that stand in for datasets of the hub.

    Raises:
        UserError: The recipe itself cannot work, or it has a part that nothing can stand in for.
    """
    change = _Change(document, folder)
    if _drop(document.data, "push_to_hub"):  # before the check, which asks for the hub's token
        change.changes.append("nothing is pushed to the hub")
    load(document, CATALOGUE)
    steps = {str(name): change.step(str(name), raw) for name, raw in _plain(document.data["steps"]).items()}
    stand_ins = {
        name: {"kind": "stand_in_model", "like": model} | ({"reward": True} if reward else {})
        for (model, reward), name in change.models.items()
    }
    data = {**_plain(document.data), "steps": {**stand_ins, **change.added, **steps}}
    changed = Document(
        name=f"rehearsal of {document.name}",
        text=yaml.safe_dump(data, sort_keys=False, allow_unicode=True, width=110),
        data=data,
        folder=document.folder,
    )
    models = dict.fromkeys(model for model, _ in change.models)
    templates = [model for model in models if own_family(model) is not None]
    if templates:
        change.changes.append(f"the real chat templates, found on this machine, of {', '.join(templates)}")
    return Rehearsal(load(changed, CATALOGUE), list(models), list(dict.fromkeys(change.changes)))


def machine_of_rehearsals() -> Machine:
    """Return what of this machine rehearsals take: a core for each step, if there is memory for its engine."""
    machine = this_machine()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return replace(machine, cpus=max(1, min(machine.cpus, memory // MEMORY)))


def summary(rehearsed: Sequence[Rehearsal]) -> str:
    """Return what was rehearsed with what, and what a rehearsal cannot check."""
    models = dict.fromkeys(escape(model) for item in rehearsed for model in item.models)
    changes = dict.fromkeys(escape(change) for item in rehearsed for change in item.changes)
    lines = [f"[bold]Stood in for:[/] {', '.join(models) or 'none'}", "[bold]Changed:[/]"]
    lines += [f"  - {change}" for change in changes]
    lines += ["[bold]Not checked:[/]", *(f"  - {text}" for text in UNCHECKED)]
    return "\n".join(lines)


def _plain(value: Any) -> Any:
    """Copy plain values; what YAML anchors share becomes a copy for each place."""
    return json.loads(json.dumps(value))


@dataclass
class _Change:
    """What becomes of the steps of one recipe."""

    document: Document
    folder: Path
    models: dict[tuple[str, bool], str] = field(default_factory=dict)
    """Stand-ins, by the model and whether it is asked as a reward model."""
    added: dict[str, Raw] = field(default_factory=dict)
    at_work: str = ""
    """Name of the step that is being changed."""
    changes: list[str] = field(default_factory=list)

    @functools.cached_property
    def named(self) -> set[str]:
        """The models of single seeds that the recipe names: ``$step@seed``."""
        return set(re.findall(r"\$[\w-]+@\d+", json.dumps(self.document.data)))

    def step(self, name: str, raw: Raw) -> Raw:
        """Return what stands in for a step."""
        self.at_work = name
        if isinstance(scorer := raw.get("scorer"), dict) and scorer.get("name") == "class_probability":
            raw["scorer"] = "feature:capitals"
            self.changes.append("the share of capital letters in place of what a text classifier says")
        values = {"seed": self.document.data.get("seed", 0), **raw}
        config = CATALOGUE[raw["kind"]].model_validate(values, context={"folder": self.document.folder})
        self._models(config, raw)
        self._outside(name, raw)
        change: Callable[[StepConfig, Raw], None] | None = getattr(self, f"_{raw['kind']}", None)
        if change is not None:
            change(config, raw)
        elif hasattr(config, "learning_rate"):
            self._training(config, raw)
        return raw

    def _models(self, config: StepConfig, raw: Raw) -> None:
        """Put stand-ins where models of the hub or of a folder are named, also where only their names stand."""
        names: dict[str, str] = {}
        for reference in config.references():
            if "model" in reference.reads.types and reference.step is None:
                slug = re.sub(r"[^a-z0-9]+", "_", reference.value.rpartition("/")[2].lower()).strip("_")
                reward = _at(raw, reference.path[:-1]).get("name") == "reward"
                name = f"stand_in_reward_{slug}" if reward else f"stand_in_{slug}"
                names[reference.value] = self.models.setdefault((reference.value, reward), name)
                _at(raw, reference.path[:-1])[reference.path[-1]] = f"${name}"
        for model, stand_in in {**{model: name for (model, _), name in self.models.items()}, **names}.items():
            _rename(raw, model, stand_in)

    def _outside(self, name: str, raw: Raw) -> None:
        """Leave out everything that would reach beyond this machine, or that asks for a larger one."""
        resources = raw.pop("resources", None) or {}
        if resources.get("report_to"):
            self.changes.append(f"{name}: no trackers")
        raw["resources"] = {"cpus": 1}  # what stand-ins have to do is too little to share: steps run side by side
        if "gradient_checkpointing" in resources:
            raw["resources"]["gradient_checkpointing"] = resources["gradient_checkpointing"]
        engine = raw.get("engine")
        if isinstance(engine, dict):
            if engine.get("name") == "openai":
                self.changes.append(f"{name}: asks a stand-in on this machine in place of a server")
                for option in ("name", "api", "served_model", "server_fields"):
                    engine.pop(option, None)
            for option in ("revision", "quantization", "trust_remote_code", "max_model_len"):
                engine.pop(option, None)

    def _prompts(self, config: Any, raw: Raw) -> None:
        # Where classifiers read them, both halves need both classes.
        items = any(step.get("items") == f"${self.at_work}" for step in self.document.data["steps"].values())
        number = ITEMS if items else ROWS
        raw["limit"] = min(config.limit or number, number)
        self.changes.append(f"at most {number} {'items' if items else 'prompts or pairs'} of each source")
        if _on_hub(config.source):
            raw["source"] = self._dataset(config.source, config.columns, "prompts")
            raw.setdefault("task", config.task or config.source)
            for option in ("split", "config", "revision"):
                raw.pop(option, None)
        elif looks_local(config.source):
            raw["source"] = config.source

    def _items(self, config: Any, raw: Raw) -> None:
        limit = min(config.limit or ITEMS, ITEMS)
        data, seed = config.definition().data, config.seed
        raw.clear()
        if data.source is not None:
            raw |= {"kind": "items", "format": config.format, "split": config.split}
        else:  # rows of each split are others, so that a test shares none with a half
            source = self._dataset(f"{data.repo} {config.split or data.split}", {}, "items")
            raw |= {"kind": "prompts", "source": source, "task": config.format}
        raw |= {"limit": limit, "seed": seed, "resources": {"cpus": 1}}
        self.changes.append(f"at most {ITEMS} items of each source")

    def _half(self, config: Any, raw: Raw) -> None:
        if not 1 / 4 <= config.share <= 3 / 4:
            raw["share"] = 0.5  # the smaller part of a few items would be too small to pick from
            self.changes.append("halves in place of parts of very different sizes")

    _half_pairs = _half

    def _pick(self, config: Any, raw: Raw) -> None:
        if config.number is None:
            raw["least"] = min(config.least, 0.5)  # stand-ins are sure of nothing
            return
        raw["number"] = min(config.number, ITEMS // 8)
        self.changes.append(f"at most {ITEMS // 8} picked items")

    def _import_pairs(self, config: Any, raw: Raw) -> None:
        raw["limit"] = min(config.limit or ROWS, ROWS)
        if not _on_hub(config.source):
            raw["source"] = config.source
            return
        # rows of each split and folder are others, so that a test shares none with what is trained on
        apart = [part for part in (config.data_dir, config.split) if part not in (None, "train")]
        raw["source"] = self._dataset(" ".join([config.source, *apart]), config.columns, row_format(config))
        for option in ("split", "config", "revision", "data_dir"):
            raw.pop(option, None)

    def _import_chats(self, config: Any, raw: Raw) -> None:
        raw["limit"] = min(config.limit or ROWS, ROWS)
        if not _on_hub(config.source):
            raw["source"] = config.source
            return
        raw["source"] = self._dataset(config.source, {"messages": config.column} if config.column else {}, "chats")
        for option in ("split", "config", "revision"):
            raw.pop(option, None)

    def _score(self, config: Any, raw: Raw) -> None:
        """Rate by length what pairs of right and wrong answers are made of: no answer of a stand-in is right."""
        readers = [step for step in self.document.data["steps"].values() if step.get("rule") == "correctness"]
        if any(f"${self.at_work}" in step.get("scores", ()) for step in readers):
            raw["scorer"] = "feature:chars"

    def _pair(self, config: Any, raw: Raw) -> None:
        if raw.get("rule") == "correctness":
            raw["rule"] = "score_gap"
            raw.pop("right_at", None)
            self.changes.append("pairs by length in place of right over wrong: stand-ins are never right")

    def _label_pairs(self, config: Any, raw: Raw) -> None:
        if raw.pop("least_confidence", None) is not None:
            self.changes.append("labels of pairs however unsure: a stand-in is sure of none")

    def _join(self, config: Any, raw: Raw) -> None:
        if raw.pop("counts", None) is not None:
            self.changes.append("all pairs of each set, in place of a number of each")

    def _dataset(self, source: str, columns: dict[str, str], form: RowFormat) -> str:
        self.changes.append(f"our own rows in the format of {source}")
        names = "-".join(re.sub(r"\W+", "_", part) for part in (form, source, *columns.values()))
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / f"{names}.jsonl"
        path.write_text(stand_in_rows(source, columns, form), encoding="utf-8")
        return str(path.absolute())

    def _sampling(self, sampling: Raw, least: int = 2) -> None:
        sampling["max_tokens"] = min(int(sampling.get("max_tokens", TOKENS)), TOKENS)
        sampling["n"] = min(int(sampling.get("n", 1)), max(2, least))
        more = f", {least} where a metric needs as many" if least > 2 else ""
        self.changes.append(f"answers of at most {TOKENS} tokens, at most 2 per prompt{more}")

    def _quick_engine(self, raw: Raw) -> None:
        """Leave vLLM to the steps that generate: starting it for every arm would take longer than all the rest."""
        if (raw.get("engine") or {}).get("name", "auto") == "auto":
            raw["engine"] = {**(raw.get("engine") or {}), "name": "transformers"}
            self.changes.append(
                "answers for evaluations, judges and debates by transformers, not by the recipe's engine"
            )

    def _generate(self, config: Any, raw: Raw) -> None:
        self._sampling(raw["sampling"])

    def _debate(self, config: Any, raw: Raw) -> None:
        self._quick_engine(raw)
        raw["sampling"] = raw.get("sampling") or {"temperature": 1}
        self._sampling(raw["sampling"])

    def _decompose(self, config: Any, raw: Raw) -> None:
        raw.clear()
        source = self._dataset(f"sub-problems of {config.prompts}", {}, "prompts")
        raw |= {"kind": "prompts", "source": source, "task": "sub-problems", "limit": ROWS, "resources": {"cpus": 1}}
        self.changes.append("made-up sub-problems: a stand-in takes nothing apart")

    def _select(self, config: Any, raw: Raw) -> None:
        """Keep every response: those of stand-ins are right, or agree, by chance at most."""
        kept = ("kind", "responses", "seed", "resources", "one_per_prompt", "match")
        raw |= {"by": "all"}
        for option in [name for name in raw if name not in (*kept, "by")]:
            del raw[option]
        self.changes.append("every response in place of a selection: stand-ins are right, or agree, by chance at most")

    def _judge(self, config: Any, raw: Raw) -> None:
        self._quick_engine(raw)
        # A stand-in rates by chance; greedily it would give every answer the same rating, and no pair would be left.
        raw["sampling"] = {**raw.get("sampling", {}), "temperature": 0.3}
        self._sampling(raw["sampling"])

    def _meta_ranking(self, config: Any, raw: Raw) -> None:
        """Judge one by one: no answer of a stand-in is right, so that there are no references of both kinds."""
        kept = {name: raw[name] for name in ("model", "sampling", "engine", "resources", "seed") if name in raw}
        raw.clear()
        raw |= kept | {"kind": "judge", "mode": "verdict", "responses": [config.responses]}
        self._judge(config, raw)
        self.changes.append("verdicts one by one in place of meta ranking: stand-ins are never right")

    def _combine(self, config: Any, raw: Raw) -> None:
        if config.method in ("label_model", "supervised"):
            raw["method"] = "mean"
            for option in ("label_model", "labels", "labeled_prompts"):
                raw.pop(option, None)
            self.changes.append("scores combined by their mean: from those of stand-ins nothing can be learned")

    def _evaluate(self, config: Any, raw: Raw) -> None:
        least = 2
        if raw.get("tasks") or raw.get("suite"):
            definitions = config.definitions()
            for option in ("tasks", "suite", "data_dir", "judge", "judging", "judge_resources"):
                raw.pop(option, None)
            raw["tasks"] = self._stand_in_tasks(definitions.values(), own_sampling=not raw.get("sampling"))
            metrics = [task.metric for task in definitions.values() if task.kind == "generate"]
            least = max([least, *(answers_needed(metric) for metric in metrics)])
        else:
            raw["sampling"] = raw.get("sampling") or {"greedy": {"temperature": 0.0}}
        self._quick_engine(raw)
        for sampling in (raw.get("sampling") or {}).values():
            self._sampling(sampling, least)

    def _stand_in_tasks(self, tasks: Collection[Task], own_sampling: bool) -> list[Raw]:
        """Write a stand-in task for each metric of the tasks, asked as the first task with this metric is."""
        self.changes.append("stand-in problems with numbers as answers in place of the benchmarks, each metric once")
        written = [task for task in tasks if task.kind == "generate"]
        if len(written) < len(tasks):
            self.changes.append("tasks that are judged, rated by likelihood or asked by lm-eval are left out")
        first = {task.metric: task for task in reversed(written)} or {"mean": Task(data=TaskData())}
        choices: list[Raw] = []
        for metric, task in first.items():
            source = self._dataset("problems", {}, "prompts")
            path = self.folder / f"stand_in_{re.sub(r'[^a-z0-9]+', '_', metric)}.yaml"
            made = {"title": f"Stand-in problems, {metric}", "data": {"source": source}, "limit": ROWS}
            made |= {"answer": "{{ answer }}", "scorer": "numeric", "metric": metric}
            path.write_text(yaml.safe_dump(made), encoding="utf-8")
            choices.append({"name": str(path.absolute())})
            if own_sampling:
                sampling = task.sampling.model_dump(mode="json")
                self._sampling(sampling, answers_needed(metric))
                choices[-1]["sampling"] = sampling
        return choices

    def _training(self, config: Any, raw: Raw) -> None:
        raw |= {"learning_rate": LEARNING_RATE, "max_steps": STEPS}
        if config.dtype == "bfloat16":  # transformers refuses it for DeepSpeed on a CPU
            raw["dtype"] = "float32"
            self.changes.append("training in float32 arithmetic")
        self.changes.append(f"{STEPS} optimizer steps of each training, at a learning rate of {LEARNING_RATE:g}")
        if config.held_out >= 1:
            raw["held_out"] = min(config.held_out, HELD_OUT)
            self.changes.append(f"at most {HELD_OUT} rows held out")
        if hasattr(config, "max_completion_length"):
            self._rollouts(config, raw)
        for option in ("num_train_epochs", "early_stopping", "stop_on_alarm"):
            raw.pop(option, None)
        if isinstance(raw.get("quick_task"), dict):
            raw["quick_task"] |= {"max_tokens": TOKENS, "scorer": "exact"}
            self.changes.append(f"quick tasks with answers of at most {TOKENS} tokens, compared as text")
        if raw.get("seeds"):
            one_by_one = [seed for seed in raw["seeds"] if f"${self.at_work}@{seed}" in self.named]
            raw["seeds"] = one_by_one or raw["seeds"][:1]
            self.changes.append("the first of several training seeds, where a recipe does not name each")
        raw["resources"]["device"] = "cpu"
        if isinstance(raw.get("adapter"), dict) and raw["adapter"].pop("load_in_4bit", False):
            self.changes.append("a frozen base in full precision in place of 4 bits")
        launch = raw.get("launch", "single")
        if launch != "single" and find_spec("deepspeed") is None:
            self.changes.append(f"one process in place of {launch}: deepspeed is not installed")
            launch = raw["launch"] = "single"
        if launch != "single":
            raw["resources"]["processes"] = PROCESSES
            self.changes.append(
                f"{PROCESSES} processes on the CPU in place of one for each GPU; micro batches by length"
            )

    def _rollouts(self, config: Any, raw: Raw) -> None:
        """Shorten the responses that a training lets its model write."""
        raw["max_completion_length"] = min(config.max_completion_length, ROLLOUT_TOKENS)
        raw.pop("rollouts", None)
        group = config.responses_per_prompt
        raw["batch_size"] = min(config.batch_size, 2 * PROCESSES * group)
        self.changes.append(
            f"responses in training of at most {ROLLOUT_TOKENS} tokens, by transformers, few in a batch"
        )
        if hasattr(config, "reward"):  # no answer of a stand-in is right, so that no group would have a signal
            raw["reward"] = "feature:chars"
            raw.pop("reward_weights", None)
            self.changes.append("rewards by length in place of the recipe's")

    def _lab_model(self, config: Any, raw: Raw) -> None:
        raw["steps"] = min(config.steps, 30)
        self.changes.append("lab models of at most 30 training steps")

    def _import_model(self, config: Any, raw: Raw) -> None:
        like = "HuggingFaceTB/SmolLM2-135M-Instruct"
        raw.clear()
        raw |= {"kind": "stand_in_model", "like": like}
        self.changes.append(f"a stand-in for {config.source}, in the format of {like}")


def _on_hub(source: str) -> bool:
    made = source.startswith(("lab/", "reasoning_gym/"))
    return not made and not looks_local(source) and "/" in source


def _at(raw: Any, path: Sequence[str]) -> Any:
    for part in path:
        raw = raw[int(part)] if isinstance(raw, list) else raw[part]
    return raw


def _rename(value: Any, old: str, new: str) -> None:
    """Replace a model's name where it stands by itself: in lists, as a value, as a key."""
    if isinstance(value, list):
        value[:] = [new if item == old else item for item in value]
    elif isinstance(value, dict):
        for key in list(value):
            if value[key] == old and key != "like":
                value[key] = new
            if key == old:
                value[new] = value.pop(key)
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _rename(item, old, new)


def _drop(value: Any, option: str) -> bool:
    """Remove an option wherever it stands; returns whether it was set."""
    if isinstance(value, list):
        return any([_drop(item, option) for item in value])
    if isinstance(value, dict):
        found = bool(value.pop(option, None))
        return any([found, *(_drop(item, option) for item in value.values())])
    return False
