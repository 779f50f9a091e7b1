"""The layouts of other tools' preference data, brought into one form: prompts, and the responses that answer them.

Four layouts hold what is in use. ``pairs``: a chosen and a rejected response (TRL with an explicit or an implicit
prompt, UltraFeedback-binarized, ShareGPT ranking, Argilla, HH-RLHF). ``ratings``: several responses with a number each
(distilabel, UltraFeedback). ``labels``: one response that is good or bad (TRL's unpaired format for KTO).
``compared``: two responses and which of them is better (PKU-SafeRLHF, Chatbot Arena). Reads rows or columns of a file,
returns frames with the columns of a layout, of one type each; what is of another type is null.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, get_args

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.interchange.columns import NAMES, Layout, base, cell, find_columns, proposed
from w2s_align.records import MESSAGES, as_label

if TYPE_CHECKING:
    import polars as pl

NEEDED: dict[Layout, tuple[tuple[str, ...], ...]] = {
    "pairs": (("chosen", "rejected"),),
    "ratings": (("prompt", "responses", "ratings"), ("prompt", "completions")),
    "labels": (("prompt", "completion", "label"),),
    "compared": (("first", "second", "winner"),),
}
"""For each layout the columns without which it cannot be read; one of the sets is enough."""
CHATS = {"prompt": "user"} | dict.fromkeys(("chosen", "rejected", "completion", "first", "second"), "assistant")
"""Columns that hold a text, a turn or turns; a text is a turn of this role."""
TEXTS = ("system", "input", "task", "chosen_model", "rejected_model", "model", "first_model", "second_model")
"""Columns that hold a text."""
NUMBERS = ("score_chosen", "score_rejected")
"""Columns that hold a number, which may be written as text."""
LISTS = {"responses": str, "ratings": float, "models": str}
"""Columns that hold one entry for each response, and the type of an entry."""
ROLES = {
    "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "bot": "assistant",
    "model": "assistant", "chatgpt": "assistant", "system": "system",
}  # fmt: skip
"""How ShareGPT and OpenAI name the roles of a chat, with our name."""
ROLES_WITH_TOOLS = ROLES | {"tool": "tool", "function": "tool", "observation": "tool", "ipython": "tool"}
"""The same where responses may hold several turns; what a tool answers is read, and never learned."""
WINNERS = {
    **dict.fromkeys(("0", "a", "model_a", "response_0", "response_a", "assistant_a", "first"), 0),
    **dict.fromkeys(("1", "b", "model_b", "response_1", "response_b", "assistant_b", "second"), 1),
}
"""How the better one of two responses is named, with its place; anything else (``tie``, ``tie (bothbad)``, -1) is no
preference."""
HUMAN, ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
"""What stands before the turns of a chat that is one text, as in HH-RLHF (https://arxiv.org/abs/2204.05862)."""
_MARKED = re.compile(rf"({HUMAN}|{ASSISTANT})")
COMPLETION = {"responses": ("response", "text"), "ratings": ("overall_score", "rating", "score"), "models": ("model",)}
"""Fields of a completion of UltraFeedback, under which names they are looked for."""
OVERALL_TO_FINE = 0.5
"""UltraFeedback rates a completion as a whole from 1 to 10, and each aspect of it from 1 to 5."""
CONTRADICTION = 2.0
"""An overall score is not believed when it is this far, on the scale of 1 to 5, from the mean of the fine-grained
ratings: in UltraFeedback a "1.0" was sometimes stored as 10 (https://huggingface.co/datasets/openbmb/UltraFeedback,
discussions)."""
DOUBTED = "overall score that contradicts the fine-grained ratings: not used"
"""What such completions are counted under."""
UNKNOWN = "unknown"
"""Name of the model where the data does not say who wrote a response."""


def find_layout(
    columns: Collection[str], layout: Layout | None, named: Mapping[str, str], row: Mapping[str, Any]
) -> tuple[Layout, dict[str, str]]:
    """Tell the layout of data from its columns.

    Args:
        columns: The columns that there are.
        layout: The layout, where it is known.
        named: Which column holds what, where its name is another than those in ``columns.NAMES``; a column can be
            looked into (``output.0``).
        row: A row of the data, to propose a mapping.

    Returns:
        The layout, and for each of its columns the one of the data that holds it.

    Raises:
        UserError: No layout, or not this one, has these columns.
    """
    layouts: tuple[Layout, ...] = (layout,) if layout else get_args(Layout)
    known = {name for each in layouts for name in NAMES[each]}
    for name, column in named.items():
        if name not in known or base(column, columns) not in columns:
            raise UserError(
                f"columns cannot map {name} to {column}.",
                why=f"The data has: {', '.join(sorted(columns))}.",
                fix=f"It maps {', '.join(sorted(known))} to columns of the data.",
            )
    for each in layouts:
        mapping = find_columns(NAMES[each], columns) | {n: c for n, c in named.items() if n in NAMES[each]}
        if any(all(name in mapping for name in needed) for needed in NEEDED[each]):
            return each, mapping
    raise UserError(
        f"The columns {', '.join(sorted(columns))} do not fit "
        f"{f'the layout {layout}' if layout else 'any layout of preference data'}.",
        why="There must be chosen and rejected; or a prompt with generations and ratings, or completions; or a prompt "
        "with completion and label; or two responses (response_0, response_1; conversation_a, conversation_b) and "
        "winner.",
        fix=_fitting(layouts, named, columns, row),
    )


def _fitting(
    layouts: tuple[Layout, ...], named: Mapping[str, str], columns: Collection[str], row: Mapping[str, Any]
) -> str:
    """Say which mapping could fit the data, or how one is written."""
    for each in layouts:
        found = find_columns(NAMES[each], columns) | {n: c for n, c in named.items() if n in NAMES[each]}
        for needed in NEEDED[each]:
            if text := proposed(("prompt", *(name for name in needed if name != "prompt")), found, row):
                return f"Say which column holds what; this could fit: {text}"
    return "Say which column holds what, e.g. columns: {prompt: question, chosen: good, rejected: bad}."


def from_rows(
    rows: list[dict[str, Any]], mapping: Mapping[str, str], roles: Mapping[str, str] = ROLES
) -> pl.DataFrame:
    """Bring rows of any types into the columns of a layout; what is of another type becomes null.

    Args:
        rows: The rows as they were read.
        mapping: For each column of the layout the one of the data that holds it.
        roles: How the data name the roles of a chat, with our name.
    """
    import polars as pl

    frame: dict[str, pl.Series] = {}
    for name, column in mapping.items():
        values = [cell(row, column) for row in rows]
        if name in ("chosen", "rejected") and mapping.get("chosen") == mapping.get("rejected"):
            values = [_one_of_two(value, name) for value in values]  # output: [better, worse]
        if name == "history":
            chats = pa.array([history_turns(value, roles) for value in values], MESSAGES)
            frame[name] = pl.Series(name, pl.from_arrow(chats))
        elif name in CHATS:
            chats = pa.array([turns(value, CHATS[name], roles) for value in values], MESSAGES)
            frame[name] = pl.Series(name, pl.from_arrow(chats))
        elif name == "completions":
            lists = [_completions(value) for value in values]
            for field, kind in LISTS.items():
                frame[field] = _list_series([found.get(field) for found in lists], kind)
            frame["doubted"] = pl.Series([sum(found.get("doubted", ())) for found in lists], dtype=pl.UInt32)
        elif name in LISTS:
            frame[name] = _list_series(values, LISTS[name])
        elif name in NUMBERS:
            frame[name] = pl.Series([_number(value) for value in values], dtype=pl.Float64)
        elif name == "label":
            frame[name] = pl.Series([as_label(value) for value in values], dtype=pl.Boolean)
        elif name == "winner":
            frame[name] = pl.Series([_place(value) for value in values], dtype=pl.Int8)
        else:
            frame[name] = pl.Series([v if isinstance(v, str) else None for v in values], dtype=pl.String)
    return pl.DataFrame(frame)


def from_columns(table: pl.DataFrame, mapping: Mapping[str, str], roles: Mapping[str, str] = ROLES) -> pl.DataFrame:
    """Bring columns of a file into those of a layout, without a Python object per row where their types allow it.

    Args:
        table: The columns as they were read.
        mapping: For each column of the layout the one of the data that holds it.
        roles: How the data name the roles of a chat, with our name.
    """
    import polars as pl

    frame: dict[str, pl.Series] = {}
    odd: dict[str, str] = {}
    sides = {name: mapping[name] for name in ("chosen", "rejected") if name in mapping}
    for name, column in mapping.items():
        values = table[base(column, table.columns)]
        in_one_text = name in CHATS and values.dtype == pl.String and values.str.starts_with(HUMAN).any()
        if column not in table.columns or (name in sides and len(set(sides.values())) == 1) or in_one_text:
            odd[name] = column
        elif name in CHATS and values.dtype == pl.String:
            turn = pl.struct(role=pl.lit(CHATS[name]), content=pl.col(column))
            chats = pl.when(pl.col(column).is_not_null()).then(pl.concat_list(turn))
            frame[name] = table.select(chats.alias(name)).to_series()
        elif name in CHATS and isinstance(values.dtype, pl.List) and isinstance(values.dtype.inner, pl.Struct):
            frame[name] = _chat_column(values, roles)
        elif (name in NUMBERS and values.dtype.is_numeric()) or (name == "label" and values.dtype == pl.Boolean):
            frame[name] = values.cast(pl.Float64) if name in NUMBERS else values
        elif name in TEXTS and values.dtype == pl.String:
            frame[name] = values
        else:
            odd[name] = column
    if odd:
        more = from_rows(table.select({base(column, table.columns) for column in odd.values()}).to_dicts(), odd, roles)
        frame |= {name: more[name] for name in more.columns}
    return pl.DataFrame(frame)


def _chat_column(values: pl.Series, roles: Mapping[str, str]) -> pl.Series:
    """Read turns in either spelling as exactly role and content; what is not known becomes null."""
    import polars as pl

    fields = {field.name: field.dtype for field in values.dtype.inner.fields}

    def text(*names: str) -> pl.Expr:
        there = [pl.element().struct.field(name) for name in names if fields.get(name) == pl.String]
        return pl.coalesce(there) if there else pl.lit(None, pl.String)

    role = text("role", "from").replace_strict(roles, default=None, return_dtype=pl.String)
    content = text("content", "value")
    if "tool" in roles.values() and isinstance(fields.get("tool_calls"), pl.List):
        calls = pl.element().struct.field("tool_calls").list.len().fill_null(0)
        content = pl.when(calls == 0).then(content)  # a call that is not text would be lost
    turn = pl.struct(role=role, content=content)
    return pl.DataFrame({"chat": values}).select(pl.col("chat").list.eval(turn)).to_series()


def _one_of_two(value: Any, side: str) -> Any:
    return value[side == "rejected"] if isinstance(value, list) and len(value) == 2 else None


def history_turns(value: Any, known: Mapping[str, str] = ROLES) -> list[dict[str, Any]] | None:
    """Return earlier turns, which are messages or pairs of a question and its answer; None where there are none."""
    if not value:
        return None
    if isinstance(value, list) and all(isinstance(pair, list | tuple) and len(pair) == 2 for pair in value):
        roles = ("user", "assistant")
        return [
            _turn({"role": role, "content": text}, known)
            for pair in value
            for role, text in zip(roles, pair, strict=True)
        ]
    return turns(value, "", known)


def turns(value: Any, role: str, roles: Mapping[str, str] = ROLES) -> list[dict[str, Any]] | None:
    """Return a text, a turn or turns as turns in our roles; None for anything else.

    Args:
        value: What a row holds.
        role: Role of a text.
        roles: How data name roles, with our name.
    """
    if isinstance(value, str):
        return _marked_turns(value) if value.startswith(HUMAN) else [{"role": role, "content": value}]
    chat = [value] if isinstance(value, dict) else value
    if not isinstance(chat, list):
        return None
    return [_turn(turn, roles) for turn in chat]


def _marked_turns(text: str) -> list[dict[str, Any]]:
    """Return the turns of a chat that is one text; a last turn of the assistant that is not written yet is none."""
    parts = _MARKED.split(text)[1:]
    roles = ("user" if mark == HUMAN else "assistant" for mark in parts[::2])
    found = [{"role": role, "content": said.strip()} for role, said in zip(roles, parts[1::2], strict=True)]
    return found[:-1] if found[-1] == {"role": "assistant", "content": ""} else found


def _place(value: Any) -> int | None:
    """Return which of two responses is the better one: 0, 1, or None for neither."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return None if isinstance(value, bool) else WINNERS.get(str(value).strip().lower().replace(" ", "_"))


def _turn(turn: Any, roles: Mapping[str, str]) -> dict[str, Any]:
    if not isinstance(turn, dict):
        return {"role": None, "content": None}
    role, content = turn.get("role", turn.get("from")), turn.get("content", turn.get("value"))
    known = roles.get(role) if isinstance(role, str) else None
    lost = "tool" in roles.values() and turn.get("tool_calls")  # a call that is not text
    return {"role": known, "content": content if isinstance(content, str) and not lost else None}


def _number(value: Any) -> float | None:
    """Return a finite number, also one that is written as text; None for anything else."""
    try:
        number = float(value) if not isinstance(value, bool) and value is not None else None
    except (TypeError, ValueError, OverflowError):  # OverflowError: an integer of more than 308 digits
        return None
    return number if number is not None and number - number == 0 else None


def _completions(value: Any) -> dict[str, list[Any]]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        return {}
    fields = {
        field: [next((entry[name] for name in names if entry.get(name) is not None), None) for entry in value]
        for field, names in COMPLETION.items()
    }
    doubted = [_contradicts(entry, rating) for entry, rating in zip(value, fields["ratings"], strict=True)]
    fields["ratings"] = [None if bad else rating for rating, bad in zip(fields["ratings"], doubted, strict=True)]
    return fields | {"doubted": doubted}


def _contradicts(entry: Mapping[str, Any], rating: Any) -> bool:
    """Say whether the overall score of a completion of UltraFeedback contradicts its fine-grained ratings."""
    overall = _number(entry.get("overall_score"))
    aspects = entry.get("annotations")
    aspects = aspects.values() if isinstance(aspects, dict) else ()
    ratings = [_number(aspect.get("Rating")) for aspect in aspects if isinstance(aspect, dict)]
    known = [number for number in ratings if number is not None]
    fine = _number(entry.get("fine-grained_score"))
    fine = sum(known) / len(known) if known else fine
    if overall is None or fine is None or rating != entry.get("overall_score"):
        return False
    return abs(overall * OVERALL_TO_FINE - fine) > CONTRADICTION


def _list_series(values: list[Any], kind: type) -> pl.Series:
    import polars as pl

    def item(value: Any) -> Any:
        return _number(value) if kind is float else value if isinstance(value, str) else None

    lists = [[item(v) for v in value] if isinstance(value, list) else None for value in values]
    return pl.Series(lists, dtype=pl.List(pl.Float64 if kind is float else pl.String))
