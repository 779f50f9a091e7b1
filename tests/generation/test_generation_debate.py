"""Debates by a real tiny model: opposite sides by a fair coin, turns in order, transcripts in every prompt, cuts."""

from __future__ import annotations

import json
import re
import shutil
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from transformers import AutoTokenizer

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineCache, Sampling
from w2s_align.generation.debate import (
    NO_ARGUMENT,
    DebateSettings,
    Reader,
    Turn,
    _first_side,
    _question,
    as_text,
    debate,
    fit_turns,
    with_transcript,
)
from w2s_align.lab import argument_chats, carry_items
from w2s_align.records import VIEWS, Prompt, from_table, to_table
from w2s_align.runs import load_recipe

VERDICTS = {"1": "the answer is correct", "0": "the answer is incorrect"}
ITEMS = [
    Prompt.of(f"Question: {a} + {a}?\nAnswer: {2 * a + a % 2}", answer=str(1 - a % 2), group=f"g{a}") for a in range(6)
]
TRANSFORMERS = Engine(name="transformers")
SAMPLING = Sampling(temperature=1, max_tokens=12)


@pytest.fixture(scope="module")
def debater(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with room for transcripts; its positions have no weights."""
    folder = Path(shutil.copytree(tiny_model, tmp_path_factory.mktemp("models") / "debater"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 2048}))
    return folder


def test_the_first_side_is_a_fair_coin_that_knows_nothing_of_the_label() -> None:
    settings = DebateSettings(verdicts=VERDICTS)
    many = [Prompt.of(f"item {i}", answer=str(i % 2)) for i in range(4000)]
    table = Counter((item.answer, _first_side(item.id, settings, 0, None)) for item in many)
    assert all(abs(count - 1000) < 110 for count in table.values())  # 4 standard deviations
    again = [_first_side(item.id, settings, 1, None) for item in many]
    assert 1800 < sum(a == _first_side(item.id, settings, 0, None) for a, item in zip(again, many, strict=True)) < 2200


def test_three_turns_alternate_and_each_prompt_holds_all_before_it(
    debater: Path, transformers_engines: EngineCache
) -> None:
    settings = DebateSettings(verdicts=VERDICTS)
    found = debate(
        debater, to_table(ITEMS), settings, sampling=SAMPLING, engine=TRANSFORMERS, engines=transformers_engines
    )
    kept = from_table(Prompt, found.items)
    assert [(k.id, k.answer, k.group) for k in kept] == [(i.id, i.answer, i.group) for i in ITEMS]
    for item, shown in zip(ITEMS, kept, strict=True):
        turns = found.transcripts[item.id]
        assert [turn.speaker for turn in turns] == ["A", "B", "A"]
        assert turns[0].verdict == turns[2].verdict != turns[1].verdict
        assert shown.meta["debate"] == [turns[0].verdict, turns[1].verdict]
        assert shown.messages[-1]["content"].startswith(item.messages[-1]["content"])
        assert shown.messages[-1]["content"].endswith(as_text(turns, settings))
        for number in (1, 2):
            asked = _question(item, turns[number].speaker, turns[number].verdict, turns[:number], settings)
            text = asked.messages[-1]["content"]
            assert as_text(turns[:number], settings) in text and text.startswith(item.messages[-1]["content"])
            assert VERDICTS[turns[number].verdict] in text.rpartition("Argue that")[2]
    assert any(turn.text for turns in found.transcripts.values() for turn in turns)


def test_seeds_give_other_transcripts_and_gold_answers_change_nothing(
    debater: Path, transformers_engines: EngineCache, tmp_path: Path
) -> None:
    def run(items: list[Prompt], seed: int, out: Path | None = None) -> dict[str, list[Turn]]:
        settings = DebateSettings(verdicts=VERDICTS, turns=2)
        return debate(
            debater, to_table(items, Prompt), settings, sampling=SAMPLING, seed=seed, out=out,
            engine=TRANSFORMERS, engines=transformers_engines,
        ).transcripts  # fmt: skip

    first = run(ITEMS, 1, tmp_path)
    assert run([replace(item, answer=None) for item in ITEMS], 1) == first
    assert run(ITEMS, 2) != first
    assert (tmp_path / "turn1").is_dir() and run(ITEMS, 1, tmp_path) == first  # from the turns on disk


def test_consultancy_and_market_making_have_one_side(debater: Path, transformers_engines: EngineCache) -> None:
    labels = {item.id: str(i % 2) for i, item in enumerate(ITEMS)}
    for form in ("consultancy", "market_making"):
        settings = DebateSettings(form=form, verdicts=VERDICTS, turns=2)
        found = debate(
            debater, to_table(ITEMS), settings, sampling=SAMPLING, against=labels, engine=TRANSFORMERS,
            engines=transformers_engines,
        )  # fmt: skip
        for item in ITEMS:
            turns = found.transcripts[item.id]
            assert {turn.speaker for turn in turns} == {"A"} and len({turn.verdict for turn in turns}) == 1
            if form == "market_making":
                assert turns[0].verdict != labels[item.id]
    with pytest.raises(UserError, match="no verdict of the weak model"):
        _first_side("x", DebateSettings(form="market_making", verdicts=VERDICTS), 0, {})
    with pytest.raises(UserError, match="maybe is not one of 1, 0"):
        _first_side("x", DebateSettings(form="market_making", verdicts=VERDICTS), 0, {"x": "maybe"})


@pytest.mark.parametrize("chat", [True, False])
def test_turns_are_cut_to_the_readers_context_and_the_item_never(tiny_model: Path, chat: bool) -> None:
    settings = DebateSettings(verdicts=VERDICTS)
    reader = Reader(AutoTokenizer.from_pretrained(str(tiny_model)), chat=chat)
    item = ITEMS[0]
    turns = [Turn("A", "1", "one two three " * 40), Turn("B", "0", "short"), Turn("A", "1", "")]
    whole = reader.count(with_transcript(item, turns, settings).messages)
    bare = reader.count(
        with_transcript(item, [replace(turn, text=" ..." if turn.text else "") for turn in turns], settings).messages
    )
    assert fit_turns(item, turns, settings, whole, reader) == (with_transcript(item, turns, settings), 0)
    for length in range(bare, whole, max(1, (whole - bare) // 7)):
        found = fit_turns(item, turns, settings, length, reader)
        assert found is not None
        shown, cut = found
        assert reader.count(shown.messages) <= length and 1 <= cut <= 2
        assert shown.messages[-1]["content"].startswith(item.messages[-1]["content"]) and shown.id == item.id
        assert NO_ARGUMENT in shown.messages[-1]["content"]
    assert fit_turns(item, turns, settings, bare - 40, reader) is None


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"verdicts": {"1": "yes"}}, "about two verdicts, and there are 1"),
        ({"verdicts": {"1": "yes", "0": "yes"}}, "two different statements"),
        ({"verdicts": VERDICTS, "turns": 0}, "greater than or equal to 1"),
    ],
)
def test_what_is_no_debate_is_refused(given: dict[str, object], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        DebateSettings.model_validate(given)


LAB = load_recipe(Path(__file__).parents[2] / "recipes/w2sg/debate_lab.yaml").recipe.nodes["talks@1"].config
LAB_SETTINGS = DebateSettings.model_validate(LAB.model_dump(include=set(DebateSettings.model_fields)))


def test_a_wording_of_ones_own_is_asked_and_shown_and_every_view_has_the_transcript() -> None:
    (item,) = carry_items(2, 0, "train", draws=2)[:1]
    turns = [Turn("A", "1", "4+9+1=14"), Turn("B", "0", "")]
    shown = with_transcript(item, turns, LAB_SETTINGS)
    said = f"\n+4+9+1=14\n-{NO_ARGUMENT}"
    for before, after in [
        (item.messages, shown.messages),
        *((item.meta[VIEWS][v], m) for v, m in shown.meta[VIEWS].items()),
    ]:
        assert after == [before[0], {"role": "user", "content": before[1]["content"] + said}]
    assert set(shown.meta[VIEWS]) == {"noisy", "noisy_2", "blind"} and shown.meta["debate"] == ["1", "0"]
    assert with_transcript(ITEMS[0], turns, LAB_SETTINGS).meta == {"debate": ["1", "0"]}


def test_debaters_of_the_lab_are_taught_what_the_recipe_asks() -> None:
    """The source lab/arguments and the wording of w2sg/debate_lab have to be the same."""
    for chat in argument_chats(40, 0):
        item = Prompt.of([chat[0], {"role": "assistant", "content": "\n".join(chat[1]["content"].split("\n")[:2])}])
        lines = chat[1]["content"].split("\n")[2:]
        turns = [Turn("A", "1" if line[0] == "+" else "0", line[1:]) for line in lines[:-1]]
        asked = _question(item, "A", "1" if lines[-1] == "+" else "0", turns, LAB_SETTINGS)
        assert asked.messages == chat[:2]


@pytest.mark.parametrize(
    ("wording", "said"),
    [
        ({"opening": "{item} {sid}"}, "may name {side}, {item}, {speaker} in braces"),
        ({"opening": "{item}"}, "must name {side}"),
        ({"shown": "{item}"}, "must name {transcript}"),
        ({"turn": "{item}{text}"}, "may name {text}, {side}, {speaker}"),
        ({"turn": "{side}: {text"}, "in braces"),
    ],
)
def test_a_wording_that_leaves_out_what_is_needed_is_refused(wording: dict[str, str], said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        DebateSettings.model_validate({"verdicts": VERDICTS, "wording": wording})
