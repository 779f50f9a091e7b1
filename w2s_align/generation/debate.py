"""Debates: two copies of one model argue for opposite verdicts about an item, so that a weaker model judges it better.

    found = debate(strong, items, DebateSettings(verdicts={"1": "the answer is correct", "0": "it is incorrect"}),
                   sampling=Sampling(temperature=1, max_tokens=128))
    found.items      # the same items, each with its transcript behind the question

Turn by turn through :func:`~w2s_align.generation.generate`, with any engine; finished turns survive a kill in ``out``.
The debaters never see a gold answer, and which verdict the first one argues for is a coin toss of the seed and the
item's id. Source: docs/methods/debate.md (arXiv 2501.13124, section 3).
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import pyarrow as pa
from pydantic import Field, ValidationInfo, field_validator

from w2s_align.errors import UserError
from w2s_align.generation.generate import generate
from w2s_align.generation.settings import Engine, EngineResources, Sampling
from w2s_align.generation.stats import part_of
from w2s_align.generation.wording import check_parts
from w2s_align.records import VIEWS, Message, Prompt, Settings, from_table, to_table

if TYPE_CHECKING:
    from w2s_align.generation.engines.engine_cache import EngineCache
    from w2s_align.generation.stats import Progress

SPEAKERS = ("A", "B")
"""Names of the two debaters in a transcript."""
NO_ARGUMENT = "(no argument)"
"""What stands in a transcript where a debater wrote nothing."""
CUT = " ..."
"""Ends a turn that was cut for the reader."""

PARTS = {
    "opening": ("side", "item", "speaker"),
    "reply": ("transcript", "side", "item", "speaker"),
    "more": ("transcript", "side", "item", "speaker"),
    "turn": ("text", "side", "speaker"),
    "shown": ("transcript", "item"),
}
"""What each template of a debate's wording may name in braces; the first it must."""


class Wording(Settings):
    """What debaters are asked and readers see: our own words, for the paper's were not found."""

    opening: str = (
        "{item}\n\nA debate is held about this. Argue that {side}. Give your strongest argument, in a few sentences."
    )
    """The first turn. {item} is the item, {side} what its verdict says."""
    reply: str = (
        "{item}\n\nA debate is held about this. So far:\n\n{transcript}\n\nYou are {speaker}. Argue that {side}: "
        "point out what is wrong in what the other side said, in a few sentences."
    )
    """A later turn of a debate. {transcript} is what was said so far."""
    more: str = (
        "{item}\n\nYou have to convince a judge that {side}. So far you said:\n\n{transcript}\n\nGive one more "
        "argument, in a few sentences."
    )
    """A later turn of a single debater."""
    turn: str = "{speaker} (for: {side}): {text}"
    """A turn in a transcript; {text} is what was said."""
    between: str = "\n\n"
    """What stands between two turns."""
    shown: str = "{item}\n\nArguments about this:\n\n{transcript}"
    """Item and transcript as the reader sees them."""

    @field_validator(*PARTS)
    @classmethod
    def _names_parts(cls, text: str, info: ValidationInfo) -> str:
        parts = PARTS[str(info.field_name)]
        return check_parts(text, parts, parts[:1])


class DebateSettings(Settings):
    """Who argues for what, and for how long."""

    form: Literal["debate", "consultancy", "market_making"] = "debate"
    """debate: A and B argue for opposite verdicts in turn. consultancy: one debater argues for a verdict drawn at
    random. market_making: one debater argues for the verdict that `against` did not give."""
    verdicts: dict[str, str]
    """The two classes of the items, each with what its debater argues, e.g. {"1": "the answer is correct", "0": "the
    answer is incorrect"}."""
    turns: int = Field(3, ge=1)
    """Turns of a transcript: A, B, A in a debate of three."""
    wording: Wording = Wording()
    """What debaters are asked and the reader sees, as templates."""

    @field_validator("verdicts")
    @classmethod
    def _two(cls, verdicts: dict[str, str]) -> dict[str, str]:
        if len(verdicts) != 2:
            raise ValueError(f"a debate is about two verdicts, and there are {len(verdicts)}")
        if len(set(verdicts.values())) < 2 or not all(text.strip() for text in verdicts.values()):
            raise ValueError("the two verdicts need two different statements")
        return verdicts


@dataclass(frozen=True)
class Turn:
    """One turn of a transcript.

    Attributes:
        speaker: ``A`` or ``B``.
        verdict: The class that the speaker argues for.
        text: What it said; empty where it wrote nothing.
    """

    speaker: str
    verdict: str
    text: str


@dataclass(frozen=True)
class Debates:
    """The result of :func:`debate`.

    Attributes:
        items: Rows of ``Prompt.SCHEMA``: the items with their ids and gold answers, the transcript behind the text.
        transcripts: By item id, its turns.
        counts: Turns that were empty, cut at their token limit, or shortened for the reader; items left out.
    """

    items: pa.Table
    transcripts: dict[str, list[Turn]]
    counts: dict[str, int]


def debate(
    model: str | Path,
    items: pa.Table,
    settings: DebateSettings,
    *,
    sampling: Sampling,
    against: Mapping[str, str] | None = None,
    out: Path | None = None,
    model_name: str | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    resources: EngineResources | None = None,
    engines: EngineCache | None = None,
    progress: Progress | None = None,
) -> Debates:
    """Let a model argue about items.

    Args:
        model: The debater, as for :func:`~w2s_align.generation.generate`, like all arguments below.
        items: Rows of ``Prompt.SCHEMA``; gold answers are not read.
        settings: Form, verdicts and turns.
        sampling: How a turn is drawn; ``n`` is 1.
        against: By item id, the class that a weak model gives it: what market-making argues against.
        out: Folder in which finished turns are kept; the same call goes on from them.
        model_name: What names the debater in the turns.
        seed: Seed of the coin tosses and of the answers; another seed is another transcript.
        engine: What runs the debater.
        resources: What the engine may use of the machine.
        engines: Engines that are open already.
        progress: Called with the turns made and all turns.

    Raises:
        UserError: ``n`` is not 1, market-making without verdicts to argue against, or the model cannot be asked.
    """
    if sampling.n != 1:
        raise UserError(f"sampling.n is {sampling.n}, and a turn is one text.", fix="More transcripts: seeds: [1, 2].")
    asked = from_table(Prompt, items)
    first = {item.id: _first_side(item.id, settings, seed, against) for item in asked}
    transcripts: dict[str, list[Turn]] = {item.id: [] for item in asked}
    counts: Counter[str] = Counter()
    for number in range(settings.turns):
        speaker = SPEAKERS[number % 2] if settings.form == "debate" else SPEAKERS[0]
        sides = {key: side if speaker == SPEAKERS[0] else _other(side, settings) for key, side in first.items()}
        questions = {
            item.id: _question(item, speaker, sides[item.id], transcripts[item.id], settings) for item in asked
        }
        made = generate(
            model,
            list({question.id: question for question in questions.values()}.values()),
            sampling,
            out=out / f"turn{number + 1}" if out else None,
            model_name=model_name,
            seed=_turn_seed(seed, number),
            engine=engine,
            resources=resources,
            engines=engines,
            progress=part_of(progress, number, settings.turns),
        ).table()
        texts = dict(zip(made["prompt_id"].to_pylist(), made["text"].to_pylist(), strict=True))
        cut = dict(zip(made["prompt_id"].to_pylist(), made["finish_reason"].to_pylist(), strict=True))
        for item in asked:
            question = questions[item.id].id
            text = " ".join((texts.get(question) or "").split())
            counts["empty turns"] += not text
            counts["turns cut at max_tokens"] += cut.get(question) == "length"
            transcripts[item.id].append(Turn(speaker, sides[item.id], text))
    kept = [with_transcript(item, transcripts[item.id], settings) for item in asked]
    return Debates(to_table(kept), transcripts, {name: number for name, number in counts.items() if number})


def with_transcript(item: Prompt, turns: Sequence[Turn], settings: DebateSettings) -> Prompt:
    """Return an item as a reader sees it: with its id, gold answer and group, a transcript behind it and its views."""
    transcript = as_text(turns, settings)

    def shown(messages: Sequence[Message]) -> list[Message]:
        text = settings.wording.shown.format(item=messages[-1]["content"], transcript=transcript)
        return _last_replaced(messages, text)

    meta: dict[str, Any] = {**item.meta, "debate": [turn.verdict for turn in turns[:2]]}
    if views := item.meta.get(VIEWS):
        meta[VIEWS] = {name: shown(messages) for name, messages in views.items()}
    return replace(item, messages=shown(item.messages), meta=meta)


def as_text(turns: Sequence[Turn], settings: DebateSettings) -> str:
    """Return a transcript as text, one turn a paragraph unless the wording says otherwise."""
    said = [(turn, turn.text or NO_ARGUMENT) for turn in turns]
    return settings.wording.between.join(
        settings.wording.turn.format(speaker=turn.speaker, side=settings.verdicts[turn.verdict], text=text)
        for turn, text in said
    )


def fit_turns(
    item: Prompt, turns: Sequence[Turn], settings: DebateSettings, length: int, tokens: Reader
) -> tuple[Prompt, int] | None:
    """Return an item with a transcript that fits a reader's context: turns are cut from their ends, never the item.

    Args:
        item: The item.
        turns: Its transcript.
        settings: What the debate was about.
        length: Longest item with transcript, in the reader's tokens.
        tokens: Counts a chat's tokens as the reader renders it, and cuts a text to a number of tokens.

    Returns:
        The item with its transcript, and how many turns were cut; None where the item alone leaves no room.
    """
    whole = with_transcript(item, turns, settings)
    if tokens.count(whole.messages) <= length:
        return whole, 0

    def shortened(limit: int) -> list[Turn]:
        """Cut every turn to so many tokens; short ones stay whole."""
        found = [(turn, tokens.cut(turn.text, limit)) for turn in turns]
        return [turn if text == turn.text else replace(turn, text=text + CUT) for turn, text in found]

    def fits(limit: int) -> bool:
        return tokens.count(with_transcript(item, shortened(limit), settings).messages) <= length

    if not fits(0):
        return None
    limit = bisect_left(range(1, max(len(turn.text) for turn in turns) + 1), True, key=lambda n: not fits(n))
    made = shortened(limit)
    return with_transcript(item, made, settings), sum(a.text != b.text for a, b in zip(made, turns, strict=True))


class Reader:
    """Tokens as the reader of transcripts counts them.

    Args:
        tokenizer: The reader's tokenizer.
        chat: Whether items are rendered by its chat template; else their text alone.
    """

    def __init__(self, tokenizer: Any, *, chat: bool = True) -> None:
        self.tokenizer, self.chat = tokenizer, chat

    def count(self, messages: Sequence[Message]) -> int:
        """Return the number of tokens of a chat."""
        if self.chat:
            ids = self.tokenizer.apply_chat_template(list(messages), add_generation_prompt=True, return_dict=False)
            return len(ids)
        return len(self.tokenizer("\n".join(turn["content"] for turn in messages))["input_ids"])

    def cut(self, text: str, tokens: int) -> str:
        """Return the beginning of a text, at most that many tokens long."""
        found = self.tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
        ends = [end for _, end in found["offset_mapping"]]
        return text if len(ends) <= tokens else text[: ends[tokens - 1]] if tokens > 0 else ""


def _first_side(key: str, settings: DebateSettings, seed: int, against: Mapping[str, str] | None) -> str:
    """Return the class that the first speaker argues for."""
    classes = list(settings.verdicts)
    if settings.form == "market_making":
        chosen = (against or {}).get(key)
        if chosen not in settings.verdicts:
            given = "none was given" if chosen is None else f"{chosen} is not one of {', '.join(classes)}"
            raise UserError(
                f"market_making has no verdict of the weak model to argue against for item {key[:12]} ({given}).",
                fix="against: $labels, of the same items and classes.",
            )
        return _other(chosen, settings)
    coin = hashlib.sha256(f"debate {seed} {key}".encode()).digest()[0] & 1
    return classes[coin]


def _other(verdict: str, settings: DebateSettings) -> str:
    return next(name for name in settings.verdicts if name != verdict)


def _turn_seed(seed: int, number: int) -> int:
    """Return the seed of a turn: all turns differ, and so do all transcripts."""
    return int.from_bytes(hashlib.sha256(f"turn {seed} {number}".encode()).digest()[:4], "big")


def _question(item: Prompt, speaker: str, side: str, so_far: Sequence[Turn], settings: DebateSettings) -> Prompt:
    wording = settings.wording
    template = wording.opening if not so_far else wording.reply if settings.form == "debate" else wording.more
    text = template.format(
        item=item.messages[-1]["content"],
        side=settings.verdicts[side],
        speaker=speaker,
        transcript=as_text(so_far, settings),
    )
    return Prompt.of(_last_replaced(item.messages, text), task=item.task)


def _last_replaced(messages: Sequence[Message], text: str) -> list[Message]:
    return [*messages[:-1], {"role": "user", "content": text}]
