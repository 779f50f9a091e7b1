"""The rows that cross steps: Prompt, Response, Score, Pair. Each is documented here, once, with its Arrow schema.

Artifacts hold these rows as Parquet files. A record is a frozen dataclass for code that works on single rows; code
that works on many rows uses the Arrow table of the same schema and never makes a Python object per row.

    table = to_table([Prompt.of("What is 2 + 2?", answer="4")])
    rows = from_table(Prompt, table)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any, ClassVar, Literal, Self, TypeAlias, TypedDict, TypeVar, get_args, get_origin

import pyarrow as pa
from pydantic import BaseModel, ConfigDict, ModelWrapValidatorHandler, ValidationError, model_validator
from pydantic_core import InitErrorDetails, PydanticCustomError

Message: TypeAlias = dict[str, str]
"""One turn of a chat: exactly ``{"role": ..., "content": ...}``, as in every Hugging Face dataset of conversations."""

FinishReason: TypeAlias = Literal["stop", "length", "error"]
"""Why a response ended: by itself, cut at the token limit, or never made (``text`` is null)."""

MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))
"""Arrow type of a chat: one struct a turn, as TRL and datasets store it."""
PROBABILITIES = pa.list_(pa.struct([("label", pa.string()), ("p", pa.float64())]))
"""Arrow type of class probabilities: a list of structs, which polars and datasets read, where a map is not."""
VIEWS = "views"
"""Entry of ``Prompt.meta`` with the other texts of an item, as messages by name."""


class ClassProbability(TypedDict):
    """How probable a classifier finds one class of a response."""

    label: str
    p: float


ANSWERED = ("user", "tool")
"""Roles after whose turn the assistant speaks."""
SECRET = "secret"
"""Type of the validation error about a value in which a key may stand: no message repeats the value."""


FIELDS = "\n\nFields:"
"""What stands before the help of the fields in the docstring of a group of options."""


class Settings(BaseModel):
    """Base of every typed group of options: unknown keys are refused, and the text under a field is its help."""

    model_config = ConfigDict(
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
        protected_namespaces=(),
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Add the help of the fields to the docstring, so that ``help(Sampling)`` shows it."""
        own = own_docstring(cls)
        described = [(name, info.description) for name, info in cls.model_fields.items() if info.description]
        lines = [f"    {name}: {' '.join(text.split())}" for name, text in described]
        cls.__doc__ = "\n".join([f"{own}{FIELDS}", *lines]) if lines else own

    @model_validator(mode="wrap")
    @classmethod
    def _no_truth_for_a_number(cls, values: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """Refuse true and false where numbers belong: pydantic would take them for 1 and 0.

        On the model and not on each field, because a validator of the field that tells the members of a union apart
        is not allowed.
        """
        if isinstance(values, dict):
            no_number = PydanticCustomError("bool_for_number", "true and false are not numbers")
            wrong = [
                InitErrorDetails(type=no_number, loc=(name,), input=value)
                for name, value in values.items()
                if (field := cls.model_fields.get(name)) and _has_bool(value) and not _takes_bool(field.annotation)
            ]
            if wrong:
                raise ValidationError.from_exception_data(cls.__name__, wrong)
        return handler(values)


def own_docstring(group: type[BaseModel]) -> str:
    """Return the docstring of a group of options without the help of its fields."""
    return (group.__doc__ or "").partition(FIELDS)[0].strip()


def _has_bool(value: Any) -> bool:
    return isinstance(value, bool) or (isinstance(value, list | tuple) and any(map(_has_bool, value)))


def _takes_bool(annotation: Any) -> bool:
    """Return whether a type has a place for true and false; a group of options judges its own fields."""
    if annotation is bool or annotation is Any:
        return True
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return True
    if get_origin(annotation) is Literal:
        return any(isinstance(value, bool) for value in get_args(annotation))
    return any(_takes_bool(part) for part in get_args(annotation))


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question for a model.

    Attributes:
        id: Digest of the messages: the same prompt has the same id in every run and on every machine.
        messages: The chat so far; the last turn is the user's.
        answer: The gold answer, or None. For scorers that say so and for diagnosis, never to make label-free pairs.
        task: Where the prompt comes from, e.g. ``gsm8k``; also names the default answer check.
        group: Prompts of one group never end up on both sides of a split (e.g. paraphrases); None is a group of one.
        meta: Anything else about the prompt, JSON-serializable.
    """

    id: str
    messages: list[Message]
    answer: str | None = None
    task: str = ""
    group: str | None = None
    meta: dict[str, Any] = field(default_factory=dict)

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("id", pa.string(), nullable=False),
            pa.field("messages", MESSAGES, nullable=False),
            pa.field("answer", pa.string()),
            pa.field("task", pa.string(), nullable=False),
            pa.field("group", pa.string()),
            pa.field("meta", pa.string(), nullable=False, metadata={"encoding": "json"}),
        ]
    )

    @classmethod
    def of(cls, prompt: str | Sequence[Message], **fields: Any) -> Prompt:
        """Make a prompt from a text (one user turn) or from messages; the id is computed.

        Args:
            prompt: The user's text, or the whole chat.
            **fields: ``answer``, ``task``, ``group``, ``meta``.
        """
        messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else list(prompt)
        return cls(id=prompt_id(messages), messages=messages, **fields)


@dataclass(frozen=True, slots=True)
class Response:
    """What a model wrote for a prompt.

    Attributes:
        prompt_id: ``Prompt.id``.
        sample: 0 .. n-1, when a model answers the same prompt several times.
        model: Name of the model that wrote it: a hub id, or the name of the step that made the model.
        text: The answer as text, without special tokens; None when there is none (``finish_reason`` is ``error``).
        reasoning: The thinking part, when it was separated from the answer.
        finish_reason: ``stop``, ``length`` (cut at ``max_tokens``) or ``error``.
        prompt_tokens: Length of the rendered prompt in the model's tokens.
        completion_tokens: Length of the answer in the model's tokens, end-of-turn included.
        seed: Seed of this very request; None for greedy decoding.
        logprob: Sum of the token log-probabilities in nats, when it was asked for.
        error: Why there is no answer.
    """

    prompt_id: str
    sample: int
    model: str
    text: str | None
    reasoning: str | None = None
    finish_reason: FinishReason = "stop"
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    seed: int | None = None
    logprob: float | None = None
    error: str | None = None

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("prompt_id", pa.string(), nullable=False),
            pa.field("sample", pa.int32(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("text", pa.string()),
            pa.field("reasoning", pa.string()),
            pa.field("finish_reason", pa.string(), nullable=False),
            pa.field("prompt_tokens", pa.int32()),
            pa.field("completion_tokens", pa.int32()),
            pa.field("seed", pa.int64()),
            pa.field("logprob", pa.float64()),
            pa.field("error", pa.string()),
        ]
    )


@dataclass(frozen=True, slots=True)
class Score:
    """What a scorer says about a response.

    Attributes:
        prompt_id: ``Response.prompt_id``.
        sample: ``Response.sample``.
        model: ``Response.model``.
        scorer: Name of the scorer, e.g. ``exact``.
        value: Higher is better; None when the response could not be scored, which is never the same as 0.
        detail: What the scorer saw, or why there is no value, in words for people. Code reads the columns below.
        answer: The final answer found in the response; None where there is none, or where the scorer reads no answers.
        outcome: Without a value, the reason, in words that responses are counted by. With one, what a value alone does
            not say: that no answer was found, how a comparison ended (``win``, ``loss``, ``tie``, ``half tie``,
            ``flip``), how far code got; else None. See :class:`w2s_align.scoring.scorer.Outcome`.
        length_difference: Characters of the response minus those of the answer that a judge compared it with.
        probabilities: Probability of each class, from a classifier.
    """

    prompt_id: str
    sample: int
    model: str
    scorer: str
    value: float | None
    detail: str = ""
    answer: str | None = None
    outcome: str | None = None
    length_difference: int | None = None
    probabilities: list[ClassProbability] | None = None

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("prompt_id", pa.string(), nullable=False),
            pa.field("sample", pa.int32(), nullable=False),
            pa.field("model", pa.string(), nullable=False),
            pa.field("scorer", pa.string(), nullable=False),
            pa.field("value", pa.float64()),
            pa.field("detail", pa.string(), nullable=False),
            pa.field("answer", pa.string()),
            pa.field("outcome", pa.string()),
            pa.field("length_difference", pa.int32()),
            pa.field("probabilities", PROBABILITIES),
        ]
    )


@dataclass(frozen=True, slots=True)
class Pair:
    """TRL's conversational preference format with an explicit prompt, plus where it comes from.

    Attributes:
        prompt: Messages up to and including the last user turn (or that of a tool) before both responses.
        chosen: One assistant turn; or several turns, of which the first and the last are the assistant's.
        rejected: The same.
        prompt_id: ``Prompt.id``.
        chosen_model: Model that wrote the chosen response.
        rejected_model: Model that wrote the rejected response.
        chosen_sample: ``Response.sample`` of the chosen response.
        rejected_sample: ``Response.sample`` of the rejected response.
        score_chosen: Score of the chosen response, where a scorer was used.
        score_rejected: Score of the rejected response, where a scorer was used.
        delta: ``score_chosen - score_rejected``.
        rule: Name of the pair rule, with ``+reversed`` or ``+tied`` for the controls.
    """

    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]
    prompt_id: str
    chosen_model: str
    rejected_model: str
    chosen_sample: int
    rejected_sample: int
    score_chosen: float | None
    score_rejected: float | None
    delta: float | None
    rule: str

    SCHEMA: ClassVar[pa.Schema] = pa.schema(
        [
            pa.field("prompt", MESSAGES, nullable=False),
            pa.field("chosen", MESSAGES, nullable=False),
            pa.field("rejected", MESSAGES, nullable=False),
            pa.field("prompt_id", pa.string(), nullable=False),
            pa.field("chosen_model", pa.string(), nullable=False),
            pa.field("rejected_model", pa.string(), nullable=False),
            pa.field("chosen_sample", pa.int32(), nullable=False),
            pa.field("rejected_sample", pa.int32(), nullable=False),
            pa.field("score_chosen", pa.float64()),
            pa.field("score_rejected", pa.float64()),
            pa.field("delta", pa.float64()),
            pa.field("rule", pa.string(), nullable=False),
        ]
    )


PAIR_TERMS = pa.schema(
    [
        pa.field("weight", pa.float64()),
        pa.field("p_pref", pa.float64()),
        pa.field("gold_order", pa.bool_()),
    ]
)
"""What a pair may carry for its loss, in columns beside those of :class:`Pair` that most tables do not have: the
``weight`` that its loss is multiplied by (none: 1), the probability ``p_pref`` that the chosen response is the better
one, and whether chosen and rejected are in ``gold_order``, for a simulated conflict alone (none: not known)."""

Record = TypeVar("Record", Prompt, Response, Score, Pair)


def shared_turns(chosen: Sequence[Message], rejected: Sequence[Message]) -> int:
    """Return how many turns of two chats are their prompt: all but the last, or what both begin with, up to a turn
    that is answered."""
    if chosen[:-1] == rejected[:-1]:
        return len(chosen) - 1
    last = min(len(chosen), len(rejected)) - 1
    same = next((at for at in range(last) if chosen[at] != rejected[at]), last)
    while same and chosen[same - 1]["role"] not in ANSWERED:
        same -= 1
    return same


def is_response(turns: Sequence[Message]) -> bool:
    """Say whether the first and the last of several turns are the assistant's."""
    return len(turns) == 1 or turns[0]["role"] == turns[-1]["role"] == "assistant"


def turns_text(turns: Sequence[Message]) -> str:
    """Return turns as a text for people; of several, each with its role before it."""
    names = len(turns) > 1
    return "\n\n".join(f"{turn['role']}: {turn['content']}" if names else turn["content"] for turn in turns)


def pair_columns(tables: Sequence[pa.Table]) -> list[pa.Table]:
    """Return tables of pairs with the same columns: those of :class:`Pair`, and the terms that any of them has.

    Args:
        tables: Rows of ``Pair.SCHEMA``, with or without columns of :data:`PAIR_TERMS`, and perhaps others.

    Raises:
        KeyError: A table lacks a column of :class:`Pair`.
    """
    terms = [term for term in PAIR_TERMS if any(term.name in table.column_names for table in tables)]
    schema = pa.schema([*Pair.SCHEMA, *terms])
    filled = []
    for table in tables:
        for term in terms:
            if term.name not in table.column_names:
                table = table.append_column(term, pa.nulls(table.num_rows, term.type))
        filled.append(table.select(schema.names).cast(schema))
    return filled


def valid_unicode(text: str) -> str:
    """Put the replacement character where half of a surrogate pair stands: JSON can hold one, no other format can."""
    return _HALF_PAIR.sub("\N{REPLACEMENT CHARACTER}", text)


_HALF_PAIR = re.compile("[\ud800-\udfff]")


LABELS: dict[str, bool] = {
    **dict.fromkeys(("true", "1", "1.0", "yes", "good", "chosen", "desirable", "positive"), True),
    **dict.fromkeys(("false", "0", "0.0", "-1", "no", "bad", "rejected", "undesirable", "negative"), False),
}
"""How data write that a response is good or bad; compared without case and outer white space."""


def as_label(value: Any) -> bool | None:
    """Return whether a label says that a response is good; None for what is no label (see :data:`LABELS`)."""
    return LABELS.get(str(value).strip().casefold()) if isinstance(value, bool | int | float | str) else None


def prompt_id(messages: Sequence[Message]) -> str:
    """Return the id of a prompt: 16 hexadecimal digits of SHA-256 over its roles and contents."""
    turns = [[message["role"], message["content"]] for message in messages]
    return hashlib.sha256(json.dumps(turns, ensure_ascii=False).encode()).hexdigest()[:16]


@cache
def _json_columns(schema: pa.Schema) -> frozenset[str]:
    return frozenset(f.name for f in schema if f.metadata and f.metadata.get(b"encoding") == b"json")


def to_table(records: Iterable[Record], record: type[Record] | None = None) -> pa.Table:
    """Turn records into an Arrow table.

    Args:
        records: Records of one class.
        record: The class; needed only when ``records`` may be empty.

    Raises:
        ValueError: There are no records and ``record`` does not say of which class.
    """
    rows = list(records)
    if record is None:
        if not rows:
            raise ValueError("say of which record the empty table is: to_table([], Prompt)")
        record = type(rows[0])
    encoded = _json_columns(record.SCHEMA)
    columns = {
        f.name: [
            json.dumps(getattr(row, f.name), ensure_ascii=False) if f.name in encoded else getattr(row, f.name)
            for row in rows
        ]
        for f in dataclasses.fields(record)
    }
    return pa.table(columns, schema=record.SCHEMA)


def record_columns(record: type[Record], table: pa.Table) -> pa.Table:
    """Return the columns of a record, in the record's order.

    Files that an older version wrote may lack a column that can be null: it is filled with nulls.

    Args:
        record: The class.
        table: A table that has at least the columns that cannot be null.

    Raises:
        KeyError: The table lacks a column that cannot be null.
    """
    for name in (f.name for f in record.SCHEMA if f.nullable and f.name not in table.column_names):
        column = record.SCHEMA.field(name)
        table = table.append_column(column, pa.nulls(table.num_rows, column.type))
    return table.select(record.SCHEMA.names)


def from_table(record: type[Record], table: pa.Table) -> list[Record]:
    """Turn a table (or a batch of one) into records.

    Columns that the record does not have are left out; see :func:`record_columns` for those that the table lacks.

    Raises:
        KeyError: The table lacks a column that cannot be null.
    """
    encoded = _json_columns(record.SCHEMA)
    rows = record_columns(record, table).to_pylist()
    return [record(**{k: json.loads(v) if k in encoded else v for k, v in row.items()}) for row in rows]
