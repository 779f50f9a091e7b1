"""What an evaluation reads, put together: the problems of all its tasks, and every arm's answers to them.

Used by `evaluate`, which scores them, and by `report`, which shows them. With several tasks the id of a problem
begins with its task, because two tasks may ask the same question and check it differently.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from w2s_align.artifacts.artifact import Artifact
from w2s_align.steps.evaluation_places import Place

if TYPE_CHECKING:
    import pyarrow as pa

LABELS = "labels"
"""The setting of classifiers, which give an item one label; also the option that names labels that are there."""
NOT_ASKED = "not asked: the prompt was dropped"


@dataclass(frozen=True)
class Asked:
    """One model's answers to one task in one setting; ids are the evaluation's.

    Attributes:
        task: Name of the task; ``prompts`` for problems of the user's own.
        problems: Rows of ``Prompt.SCHEMA``.
        responses: Rows of ``Response.SCHEMA``.
        scores: Rows of ``Score.SCHEMA``, where the answers come with their scores.
    """

    task: str
    problems: pa.Table
    responses: pa.Table
    scores: pa.Table | None


@dataclass(frozen=True)
class Evaluated:
    """The inputs of an evaluation.

    Attributes:
        inputs: Artifacts by the place that reads them, as in ``Work.inputs``.
    """

    inputs: Mapping[str, Artifact]

    @classmethod
    def of(cls, results: Artifact) -> Evaluated:
        """Open what a finished evaluation was made from."""
        return cls(dict(results.inputs()))

    def runs(self) -> dict[str, dict[str, list[str]]]:
        """Return the settings of each model of each arm: ``{arm: {index: [setting]}}``."""
        found: dict[str, dict[str, list[str]]] = {}
        for place in self._answer_places():
            settings = found.setdefault(place.arm, {}).setdefault(place.index, [])
            if place.setting not in settings:
                settings.append(place.setting)
        return found

    def problems(self) -> pa.Table:
        """Return the problems of all tasks."""
        import pyarrow as pa

        arm, by_index = next(iter(self.runs().items()))
        index, settings = next(iter(by_index.items()))
        parts = [_as_task(asked.problems, asked.task) for asked in self.answers(arm, index, settings[0])]
        return pa.concat_tables(parts).combine_chunks()

    def answers(self, arm: str, index: str, setting: str) -> Iterator[Asked]:
        """Yield one model's answers, task by task; a prompt that was dropped has an answer that failed."""
        from w2s_align.evaluation.classification import labels_as_responses

        for place in self._answer_places():
            if (place.arm, place.index, place.setting) != (arm, index, setting):
                continue
            task, artifact = place.task, self._artifact(place)
            problems = self._problems(task, artifact)
            if artifact.type == "scores" and not task:
                yield Asked("prompts", problems, labels_as_responses(artifact.table("scores")), None)
                continue
            if not task:
                yield Asked("prompts", problems, _complete(problems, artifact.table("responses")), None)
                continue
            scores = artifact.table("scores") if artifact.type == "scores" else None
            responses = _named(_complete(problems, artifact.table("responses")), "prompt_id", task)
            yield Asked(
                task,
                _named(problems, "id", task),
                responses,
                None if scores is None else _named(scores, "prompt_id", task),
            )

    def labels(self, arm: str, index: str) -> pa.Table:
        """Return the labels of one model of an arm: rows of ``Score.SCHEMA``."""
        return self._artifact(Place(arm, index, LABELS)).table("scores")

    def seed_name(self, arm: str, index: str) -> str:
        """Return the training seed of a model of an arm: ``dpo@1`` has the seed 1; else its place among them."""
        places = (place for place in self._places() if (place.arm, place.index) == (arm, index))
        made = [self._artifact(place).manifest["inputs"] for place in places]
        name = next((inputs["model"]["name"] for inputs in made if "model" in inputs), "")
        return name.rpartition("@")[2] if "@" in name else index

    def _places(self) -> Iterator[Place]:
        for text in self.inputs:
            if (place := Place.parse(text)) is not None:
                yield place
            elif text.startswith(f"{LABELS}."):
                yield Place(text.removeprefix(f"{LABELS}."), "0", LABELS)

    def _artifact(self, place: Place) -> Artifact:
        """Return the artifact of a place: an implied one, or labels that the evaluation names."""
        return self.inputs[place.input] if place.input in self.inputs else self.inputs[f"{LABELS}.{place.arm}"]

    def _answer_places(self) -> Iterator[Place]:
        return (place for place in self._places() if place.arm and not place.compared)

    def _problems(self, task: str, artifact: Artifact) -> pa.Table:
        if not task or task == "prompts":
            return self.inputs["prompts" if "prompts" in self.inputs else "items"].table()
        loaded = self.inputs.get(Place(task=task).input)
        return artifact.table("prompts") if loaded is None else loaded.table()


def _named(table: pa.Table, column: str, task: str) -> pa.Table:
    """Put the task before the ids of a table."""
    import pyarrow as pa
    import pyarrow.compute as pc

    ids = pc.binary_join_element_wise(pa.scalar(task), table[column], ":")
    return table.set_column(table.schema.get_field_index(column), table.schema.field(column), ids)


def _as_task(problems: pa.Table, task: str) -> pa.Table:
    """Let the problems carry the name under which the evaluation asks them."""
    import pyarrow as pa

    place = problems.schema.get_field_index("task")
    names = pa.repeat(pa.scalar(task), problems.num_rows)
    return problems if task == "prompts" else problems.set_column(place, problems.schema.field("task"), names)


def _complete(problems: pa.Table, responses: pa.Table) -> pa.Table:
    """Add an answer that failed for every problem that the generation dropped, so that it is counted, not lost."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from w2s_align.records import Response, to_table

    asked = pc.is_in(problems["id"], value_set=responses["prompt_id"].combine_chunks())
    missing = problems.filter(pc.invert(asked))["id"].to_pylist()
    if not missing:
        return responses
    model = responses["model"][0].as_py() if responses.num_rows else ""
    failed = [Response(problem, 0, model, None, finish_reason="error", error=NOT_ASKED) for problem in missing]
    return pa.concat_tables([responses.select(Response.SCHEMA.names).cast(Response.SCHEMA), to_table(failed)])
