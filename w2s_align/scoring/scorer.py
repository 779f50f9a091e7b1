"""What a scorer is: a group of options that opens as a function from prompts and responses to assessments.

A scorer is one class in one file of ``scorers/``: its fields are its options, the docstring is its help, the class
attributes say what else must be known about it before it runs, and :meth:`Scorer.open` does the work.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, ClassVar, TypeAlias

import pyarrow as pa

from w2s_align.files import installed_version
from w2s_align.records import ClassProbability, Score, Settings


class Outcome(StrEnum):
    """The values of ``Score.outcome`` that several scorers share; a scorer may give further reasons of its own."""

    NO_ANSWER = "no answer found"
    """Scored, usually 0: the response states no answer."""
    NO_PROMPT = "prompt not found"
    """Unscored: the response belongs to none of the prompts."""
    NO_RESPONSE = "generation failed"
    """Unscored: there is no response to score."""
    NO_GOLD = "no gold answer"
    """Unscored: the prompt has nothing to compare an answer with."""
    TOO_LONG = "longer than the model reads"
    """Unscored: the chat does not fit into the model that scores."""


@dataclass(frozen=True, slots=True)
class Assessment:
    """What a scorer says about one response; the fields are those of :class:`w2s_align.records.Score`."""

    value: float | None
    detail: str = ""
    answer: str | None = None
    outcome: str | None = None
    length_difference: int | None = None
    probabilities: list[ClassProbability] | None = None


def unscored(outcome: str, detail: str = "") -> Assessment:
    """Return the assessment of a response without a value.

    Args:
        outcome: The reason, without particulars: responses are counted by it.
        detail: The reason with its particulars, where it has any.
    """
    return Assessment(None, detail or outcome, outcome=outcome)


WITHOUT_ANSWER = Assessment(0.0, Outcome.NO_ANSWER, outcome=Outcome.NO_ANSWER)
"""What a response is worth that states no answer to a question which has one: it is wrong, not unscored."""

BatchScorer: TypeAlias = Callable[[pa.Table, pa.Table], list[Assessment]]
"""Takes prompts and responses, aligned row by row; returns one assessment per row."""


class Scorer(Settings):
    """Base of all scorers."""

    name: str
    """Name of the scorer."""

    whole_table: ClassVar[bool] = False
    """Whether responses are compared with each other, so that a batch of them must be the whole table."""
    reads_gold: ClassVar[bool] = False
    """Whether it compares with ``Prompt.answer``, so that a prompt without one cannot be scored."""
    models: ClassVar[Mapping[str, str]] = {}
    """The options that name a model, each with the option that names its revision on the hub."""

    @property
    def label(self) -> str:
        """What ``Score.scorer`` says."""
        return self.name

    def warnings(self) -> list[str]:
        """Return what a user should know before it runs on this machine."""
        return []

    @property
    def runs_transformers(self) -> bool:
        """Whether transformers runs its models in the calling process."""
        return False

    @contextmanager
    def open(self) -> Iterator[BatchScorer]:
        """Open the scorer: start its processes, load its libraries and models.

        Raises:
            UserError: A package is not installed, or a model cannot score.
        """
        raise NotImplementedError
        yield

    def asked_models(self) -> dict[str, str]:
        """Return the models that it asks, by the option that names them."""
        named = {option: getattr(self, option) for option in self.models}
        return {option: value for option, value in named.items() if value is not None}

    def versions(self) -> dict[str, str | None]:
        """Return the versions of the libraries that run its models and can change a score."""
        return {name: installed_version(name) for name in ("torch", "transformers")} if self.models else {}


def score_table(responses: pa.Table, scorer: str, assessments: Sequence[Assessment]) -> pa.Table:
    """Return rows of :class:`w2s_align.records.Score`.

    Args:
        responses: Whose ``prompt_id``, ``sample`` and ``model`` the scores get.
        scorer: What ``Score.scorer`` says.
        assessments: One for each response, in their order.
    """
    columns: dict[str, Any] = {name: responses[name] for name in ("prompt_id", "sample", "model")}
    columns["scorer"] = pa.repeat(pa.scalar(scorer), responses.num_rows)
    for field in Score.SCHEMA:
        if field.name not in columns:
            columns[field.name] = pa.array([getattr(one, field.name) for one in assessments], field.type)
    return pa.table(columns).cast(Score.SCHEMA)
