"""Prompts and responses out of the columns of a layout: what is the prompt, what answers it, which is better.

Reads frames of ``pair_layouts.py``, works on whole columns; a row that cannot be read becomes a reason, never a pair.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_align.interchange.columns import NAMES, Layout
from w2s_align.interchange.pair_layouts import CHATS, LISTS, NUMBERS, UNKNOWN
from w2s_align.interchange.pair_turns import UNKNOWN_TURN, split_turns
from w2s_align.pairing.candidates import own_text
from w2s_align.records import ANSWERED

if TYPE_CHECKING:
    import polars as pl

SEVERAL_TURNS = (
    "the chats differ before the last turn",
    "a response of several turns that does not contain the prompt",
    UNKNOWN_TURN,
)
"""What rows are counted under whose responses may hold several turns, or a tool's."""
INPUT_SEPARATOR = "\n\n"
"""What stands between an instruction and the input that belongs to it."""


def prompts_and_responses(
    frame: pl.DataFrame, layout: Layout, *, all_turns: bool = False
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Take the prompts and the responses out of the columns of a layout.

    Args:
        frame: The columns, and ``row``, the number of each row.
        layout: The layout.
        all_turns: Whether a response is everything after what both chats share, not the last turn alone.

    Returns:
        The rows with their ``prompt``, ``task`` (null when not given) and ``reason`` (null for one that can be read);
        and the responses of those that can: ``row``, ``text``, ``model``, ``score`` and ``side`` (0 chosen, 1
        rejected, null where a score has to decide); with ``all_turns`` also ``turns``, null for those of one turn.
    """
    import polars as pl

    frame = _with_input(_completed(frame, layout))
    if layout == "compared":
        frame = _sorted_out(frame)
    frame = split_turns(frame, layout) if all_turns and layout != "ratings" else _READ[layout](frame)
    if layout == "compared":
        tie = pl.when(pl.col("winner").is_null()).then(pl.lit("neither response is the better one"))
        frame = frame.with_columns(reason=pl.coalesce(tie, "reason"))
    turn = pl.struct(role=pl.lit("system"), content=pl.col("system"))
    first = pl.col("prompt").list.first().struct.field("role")
    led = pl.col("system").is_not_null() & (pl.col("system") != "") & first.ne_missing(pl.lit("system"))
    last = pl.col("prompt").list.last().struct.field("role")
    answered = last.is_in(ANSWERED if all_turns else ["user"]).fill_null(False)
    no_user = pl.when(~answered).then(pl.lit("the prompt does not end with a user turn"))
    no_prompt = pl.when(pl.col("prompt").is_null()).then(pl.lit("no prompt"))
    frame = frame.with_columns(
        reason=pl.coalesce("reason", no_prompt, _broken("prompt"), no_user),
        prompt=pl.when(led).then(pl.concat_list(pl.concat_list(turn), "prompt")).otherwise(pl.col("prompt")),
    )
    good = frame.filter(pl.col("reason").is_null())
    return frame.select("row", "prompt", "task", "reason"), _RESPONSES[layout](good)


def _completed(frame: pl.DataFrame, layout: Layout) -> pl.DataFrame:
    """Add the columns that the data does not have, as nulls."""
    import polars as pl

    chat = pl.List(pl.Struct({"role": pl.String, "content": pl.String}))
    kinds: dict[str, Any] = {name: chat for name in (*CHATS, "history")} | {name: pl.Float64 for name in NUMBERS}
    kinds |= {"label": pl.Boolean, "winner": pl.Int8}
    kinds |= {name: pl.List(pl.Float64 if kind is float else pl.String) for name, kind in LISTS.items()}
    missing = [name for name in NAMES[layout] if name not in frame.columns]
    return frame.with_columns(pl.lit(None, kinds.get(name, pl.String)).alias(name) for name in missing)


def _with_input(frame: pl.DataFrame) -> pl.DataFrame:
    """Complete a prompt of one turn by its ``input``, and put earlier turns before it; ``asked`` is the turn alone."""
    import polars as pl

    first = pl.col("prompt").list.first().struct
    last = pl.col("prompt").list.last().struct.field("content")
    single = (pl.col("prompt").list.len() == 1) & (pl.col("input").fill_null("").str.strip_chars() != "")
    content = pl.concat_str(first.field("content"), pl.col("input"), separator=INPUT_SEPARATOR)
    turn = pl.concat_list(pl.struct(role=first.field("role"), content=content))
    whole = pl.when(single).then(turn).otherwise(pl.col("prompt"))
    earlier = pl.col("history").list.len().fill_null(0) > 0
    return frame.with_columns(asked=last, prompt=whole).with_columns(
        prompt=pl.when(earlier & pl.col("prompt").is_not_null())
        .then(pl.concat_list("history", "prompt"))
        .otherwise(pl.col("prompt"))
    )


def _broken(name: str) -> pl.Expr:
    """Name the reason of a chat in which a turn has no known role or no text."""
    import polars as pl

    turn = pl.element().struct
    bad = pl.col(name).list.eval(turn.field("role").is_null() | turn.field("content").is_null()).list.any()
    return pl.when(bad).then(pl.lit(UNKNOWN_TURN))


def _last_is_assistant(name: str) -> pl.Expr:
    import polars as pl

    other = pl.col(name).list.last().struct.field("role").ne_missing(pl.lit("assistant"))
    return pl.when(other).then(pl.lit("the last turn is not the assistant's"))


def _read_pairs(frame: pl.DataFrame) -> pl.DataFrame:
    """Find the prompt of each pair: its own column, or what two whole chats share up to the last turn.

    Where the prompt ends in two strings cannot be told (https://github.com/huggingface/trl/pull/6472 and others): a
    guess cuts words in two, so that such a row has no prompt.
    """
    import polars as pl

    chats = {side: pl.col(side) for side in ("chosen", "rejected")}
    sizes = {side: chat.list.len().cast(pl.Int64) for side, chat in chats.items()}
    heads = {side: chats[side].list.slice(0, sizes[side] - 1) for side in chats}
    whole = (sizes["chosen"] > 1) | (sizes["rejected"] > 1)
    differ = (sizes["chosen"] < 2) | (sizes["rejected"] < 2) | (heads["chosen"] != heads["rejected"])
    asked = pl.col("asked")
    turns = heads["chosen"].list.eval(pl.element().struct.field("content"))
    elsewhere = pl.col("prompt").is_not_null() & ~turns.list.contains(asked)
    missing = pl.any_horizontal(chat.is_null() | (chat.list.len() == 0) for chat in chats.values())
    return frame.with_columns(
        reason=pl.coalesce(
            pl.when(missing).then(pl.lit("no chosen or no rejected response")),
            *[_broken(side) for side in chats],
            pl.when(whole & differ).then(pl.lit(SEVERAL_TURNS[0])),
            pl.when(whole & elsewhere).then(pl.lit(SEVERAL_TURNS[1])),
            *[_last_is_assistant(side) for side in chats],
        ),
        prompt=pl.when(whole).then(heads["chosen"]).otherwise(pl.col("prompt")),
    )


def _sorted_out(frame: pl.DataFrame) -> pl.DataFrame:
    """Make two responses, of which one is better, a chosen and a rejected one."""
    import polars as pl

    first = pl.col("winner") == 0
    sides = {
        f"{side}{suffix}": pl.when(first if side == "chosen" else ~first)
        .then(pl.col(f"first{suffix}"))
        .otherwise(pl.col(f"second{suffix}"))
        for side in ("chosen", "rejected")
        for suffix in ("", "_model")
    }
    none = pl.lit(None, pl.Float64)
    return frame.with_columns(score_chosen=none, score_rejected=none, **sides)


def _read_ratings(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    texts, ratings, models = (pl.col(name) for name in ("responses", "ratings", "models"))
    uneven = (texts.list.len() != ratings.list.len()) | (
        models.is_not_null() & (models.list.len() != texts.list.len())
    )
    few = pl.when(texts.list.drop_nulls().list.len() < 2).then(pl.lit("fewer than two responses"))
    return frame.with_columns(
        reason=pl.coalesce(
            pl.when(texts.is_null() | ratings.is_null()).then(pl.lit("no responses or no ratings")),
            pl.when(uneven).then(pl.lit("not as many ratings or models as responses")),
            few,
        )
    )


def _read_labels(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    one = pl.col("completion").list.len() == 1
    missing = ~one.fill_null(False) | pl.col("label").is_null()
    return frame.with_columns(
        reason=pl.coalesce(
            pl.when(missing).then(pl.lit("not one completion with a label")),
            _broken("completion"),
            _last_is_assistant("completion"),
        )
    )


def _text(frame: pl.DataFrame, side: str) -> list[pl.Expr]:
    """Return the text of responses, and the turns of those that have several."""
    import polars as pl

    if f"{side}_turns" not in frame.columns:
        return [pl.col(side).list.last().struct.field("content").alias("text")]
    several = pl.when(pl.col(f"{side}_turns").list.len() > 1).then(f"{side}_turns")
    return [own_text(f"{side}_turns").alias("text"), several.alias("turns")]


def _responses_of_pairs(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    parts = [
        frame.select(
            "row",
            *_text(frame, side),
            model=pl.col(f"{side}_model").fill_null(UNKNOWN),
            score=f"score_{side}",
            side=pl.lit(number, pl.Int8),
        )
        for number, side in enumerate(("chosen", "rejected"))
    ]
    return pl.concat(parts).sort("row", "side")


def _responses_of_ratings(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    models = pl.coalesce("models", pl.lit(UNKNOWN, pl.String).repeat_by(pl.col("responses").list.len()))
    wide = frame.select("row", text="responses", score="ratings", model=models).explode("text", "score", "model")
    side = pl.lit(None, pl.Int8)
    return wide.select("row", "text", pl.col("model").fill_null(UNKNOWN), "score", side=side)


def _responses_of_labels(frame: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return frame.select(
        "row",
        *_text(frame, "completion"),
        model=pl.col("model").fill_null(UNKNOWN),
        score=pl.lit(None, pl.Float64),
        side=(~pl.col("label")).cast(pl.Int8),
    )


_READ = {"pairs": _read_pairs, "ratings": _read_ratings, "labels": _read_labels, "compared": _read_pairs}
_RESPONSES = {
    "pairs": _responses_of_pairs,
    "ratings": _responses_of_ratings,
    "labels": _responses_of_labels,
    "compared": _responses_of_pairs,
}
