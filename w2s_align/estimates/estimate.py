"""What a plan will cost: rows, tokens, steps, memory per GPU, time and money, for every artifact that is to be made.

Reads the plan, finished artifacts, and shapes of models; starts nothing and asks no hub. Numbers that follow from the
recipe and from finished artifacts are exact; the others rest on the assumptions in costs.py, which are shown beside
them.
"""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.identity import hub_revision, looks_local
from w2s_align.artifacts.store import Store
from w2s_align.estimates.costs import Costs, Item, StepEstimate
from w2s_align.estimates.generation import estimate_generation
from w2s_align.estimates.gpus import Hardware
from w2s_align.estimates.rows import estimate_rows
from w2s_align.estimates.training import count_rows, estimate_training
from w2s_align.families import Shape, find_shape, in_cache, shipped_shapes
from w2s_align.steps.debate import DebateStep
from w2s_align.steps.decompose import Decompose
from w2s_align.steps.generate import Generate
from w2s_align.steps.judge import JudgeStep
from w2s_align.steps.meta_ranking import MetaRanking
from w2s_align.steps.train import TrainStep
from w2s_align.training.adapters import base_of, is_adapter

if TYPE_CHECKING:
    from w2s_align.training.data import TrainingData


def estimate(planned: Mapping[str, Item], store: Store, hardware: Hardware | None, *, count: bool = False) -> Costs:
    """Estimate every artifact of a plan.

    Args:
        planned: The plan.
        store: Where finished artifacts are.
        hardware: What it is to run on; None for this machine's CPU, and no statement about time.
        count: Where the data of a training is cached, count its rows and tokens with the student's own
            tokenizer, as the training will: exact, and it takes the minutes that tokenizing takes.
    """
    estimator = _Estimator(planned, store, hardware, count)
    for name in planned:
        estimator.add(name)
    return Costs(hardware, estimator.found, estimator.downloads, estimator.unknown, estimator.unread)


class _Estimator:
    def __init__(self, planned: Mapping[str, Item], store: Store, hardware: Hardware | None, count: bool) -> None:
        self._planned, self._store, self._hardware, self._count = planned, store, hardware, count
        self.found: dict[str, StepEstimate] = {}
        self.downloads: dict[str, float] = {}
        self.unknown: dict[str, str | None] = {}
        self.unread: list[str] = []

    def add(self, name: str) -> None:
        config: Any = self._planned[name].node.config
        done = self._done(name)
        if done is not None:
            self.found[name] = _finished(done)
        elif isinstance(config, TrainStep):
            self.found[name] = self._training(name, config)
        elif isinstance(config, Generate | JudgeStep | MetaRanking | DebateStep | Decompose):
            place = {Generate: "prompts", DebateStep: "items", Decompose: "prompts"}.get(type(config), "responses")
            asked = self._sources(name, place)
            shape = None if config.engine.name == "openai" else self._shape(name, config.model)
            exact = all(one.exact for one in asked)
            self.found[name] = estimate_generation(config, _together(asked), exact, shape, self._hardware)
        else:
            self.found[name] = estimate_rows(config, lambda place: self._sources(name, place))

    def _sources(self, name: str, place: str) -> list[StepEstimate]:
        inputs = self._planned[name].node.inputs
        return [self.found[source] for where, source in inputs.items() if where.partition(".")[0] == place]

    def _training(self, name: str, config: Any) -> StepEstimate:
        inputs = self._planned[name].node.inputs
        option = config.method.inputs.option
        sources = [source for place, source in inputs.items() if place.partition(".")[0] == option]
        counted = self._counted(config, inputs) if self._count else None
        rows = _together([self.found[source] for source in sources])
        if rows is not None and getattr(config, "side", None) == "both":
            rows *= 2  # each response of a pair is a row
        shape = self._shape(name, config.model)
        beside = {model: place for place, model in config.frozen_models().items()}  # each counts once
        shapes = [shape if model is None else self._shape(name, model, place) for model, place in beside.items()]
        frozen = sum(found.parameters for one in shapes if (found := one or shape) is not None)
        return estimate_training(config, rows, counted, shape, self._hardware, frozen)

    def _counted(self, config: Any, inputs: Mapping[str, str]) -> TrainingData | None:
        """Tokenize the data of a training as the training will; None while its data or its model is not there."""
        wanted = {place: name for place, name in inputs.items() if not place.startswith("quick_task")}
        data = {place: found for place, name in wanted.items() if (found := self._done(name)) is not None}
        if len(data) < len(wanted):
            return None
        model = data.pop("model", None)
        start = str(model.model) if model is not None else _without_adapter(config.model)
        if model is None and not looks_local(start) and not in_cache(start):
            return None
        return count_rows(config, data, start)

    def _done(self, name: str) -> Artifact | None:
        item = self._planned[name]
        return self._store.find(item.node.config.kind, item.key)

    def _shape(self, name: str, model: str, place: str = "model") -> Shape | None:
        """Return the shape of a model; of one that a step makes, that of the model it starts from; of an adapter that
        of its base.

        Args:
            name: The node that reads the model.
            model: What it names.
            place: The option that names it.
        """
        if not model.startswith("$"):
            model = _without_adapter(model)
            shape = find_shape(model)
            if shape is None:
                if model not in self.unknown and model.count("/") == 1:
                    self.unknown[model] = next(iter(get_close_matches(model, shipped_shapes(), n=1)), None)
            elif not looks_local(model) and not in_cache(model):
                self.downloads[model] = shape.weight_bytes
            missing = model in self.unknown or model in self.downloads
            if missing and model not in self.unread and _hides(model):
                self.unread.append(model)
            return shape
        inputs = self._planned[name].node.inputs.items()
        source = next((s for p, s in inputs if place in (p, p.partition(".")[0])), None)
        if source is None:
            return None
        item, done = self._planned[source], self._done(source)
        if done is not None:
            return find_shape(str(done.model))
        started: Any = getattr(item.node.config, "model", None) or getattr(item.node.config, "like", None)
        return self._shape(source, started) if isinstance(started, str) else None


def _without_adapter(model: str) -> str:
    folder = Path(model).expanduser()
    return base_of(folder) if is_adapter(folder) else model


def _hides(model: str) -> bool:
    """Say whether the hub was asked for a model, when the plan was made, and did not show it."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE and hub_revision(model, "model", None) is None


def _together(sources: list[StepEstimate]) -> int | None:
    """Return the rows of all of them; None while those of one are not known."""
    rows = [one.rows for one in sources if one.rows is not None]
    return sum(rows) if rows and len(rows) == len(sources) else None


def _finished(artifact: Artifact) -> StepEstimate:
    counts, result = artifact.manifest["counts"], artifact.manifest["result"]
    tokens = result.get("completion_tokens") or result.get("tokens")
    return StepEstimate(
        rows=counts.get("kept"), exact=True, tokens=(tokens, tokens) if tokens else None, steps=result.get("steps")
    )
