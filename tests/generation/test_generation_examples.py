"""Examples in the prompt: as literal tokens, drawn by a seed, never the question itself, refused where they change."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine
from w2s_align.generation.chat import Chat
from w2s_align.generation.examples import Example, Examples, check_examples, draw_examples
from w2s_align.generation.models import find_model
from w2s_align.generation.prompts import PromptRows
from w2s_align.records import Prompt, Response, to_table
from w2s_align.steps.examples import ExampleOptions

QUESTION = [{"role": "user", "content": "1+2="}]
ONE = Example([{"role": "user", "content": "3+4="}], "8")


def answers(n: int, finish: str = "stop") -> tuple[list[Prompt], list[Response]]:
    prompts = [Prompt.of(f"{i}+{i}=", task="sums") for i in range(n)]
    return prompts, [Response(p.id, 0, "weak", f"answer {i}", finish_reason=finish) for i, p in enumerate(prompts)]


def test_examples_are_earlier_turns_token_by_token(tiny_model: Path) -> None:
    chat = Chat(find_model(tiny_model), Engine())
    shown = Examples([ONE]).before("", QUESTION)
    # <s> <user> 3 + 4 = <assistant> 8 </s> <user> 1 + 2 = <assistant>
    assert chat.render(shown) == [2, 4, 10, 17, 11, 18, 5, 15, 3, 4, 8, 17, 9, 18, 5]
    system = [{"role": "system", "content": "a"}, *QUESTION]
    assert [turn["role"] for turn in Examples([ONE]).before("", system)] == ["system", "user", "assistant", "user"]


def test_a_template_that_drops_earlier_reasoning_is_refused(model_copy: Path) -> None:
    check_examples(Chat(find_model(model_copy), Engine()), Examples([ONE]))
    template = (
        (model_copy / "chat_template.jinja").read_text().replace("+ m['content']", "+ m['content'].split('=')[-1]")
    )
    (model_copy / "chat_template.jinja").write_text(template)
    with pytest.raises(UserError, match="does not show an example as it was written"):
        check_examples(Chat(find_model(model_copy), Engine()), Examples([Example(QUESTION, "1+2=3")]))


def test_the_draw_depends_on_seed_and_ids_and_leaves_out_what_is_incomplete() -> None:
    prompts, responses = answers(30)
    cut = [Response(p.id, 1, "weak", "cut", finish_reason="length") for p in prompts]
    table = to_table(prompts)
    drawn = draw_examples(table, to_table([*cut, *responses]), 4, seed=1)
    assert drawn == draw_examples(table, to_table([*responses[::-1], *cut]), 4, seed=1)
    assert len(drawn.shown) == 4 and all(example.response.startswith("answer") for example in drawn.shown)
    assert len({str(draw_examples(table, to_table(responses), 4, seed).shown) for seed in range(5)}) == 5
    for rows in (responses[:3], answers(30, "length")[1]):
        with pytest.raises(UserError, match=r"4 examples cannot be drawn: [03] of"):
            draw_examples(table, to_table(rows), 4, seed=1)


def test_a_question_is_never_its_own_example_and_ids_stay() -> None:
    prompts, responses = answers(30)
    examples = draw_examples(to_table(prompts), to_table(responses), 4, seed=1)
    rows = PromptRows(to_table(prompts), examples)
    chats = {
        prompt_id: chat
        for _, batch in rows.batches()
        for prompt_id, chat in zip(batch.column("id").to_pylist(), batch.column("messages").to_pylist(), strict=True)
    }
    assert [*chats] == [prompt.id for prompt in prompts]
    for prompt in prompts:
        *before, last = chats[prompt.id]
        assert last == prompt.messages[0] and len(before) == 8 and last not in before
    assert len({PromptRows(to_table(prompts), given).digest for given in (None, examples, Examples([ONE]))}) == 3


def test_stop_texts_that_would_cut_a_solution_at_a_word_are_refused(tmp_path: Path) -> None:
    options = ExampleOptions.model_validate({"from": "$weak", "n": 4})
    assert options.model_dump()["from"] == "$weak" and not options.identity()
    options.check(["\nQuestion:", "<|im_end|>"])
    for text in ("Answer", "Question:"):
        with pytest.raises(UserError, match="would cut every solution"):
            options.check([text])
    with pytest.raises(UserError, match="from a step or from a file"):
        ExampleOptions().check([])
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"prompt": "1+1=", "response": "2"}\n{"prompt": "1+3="}\n')
    one = ExampleOptions(file=str(rows), n=1)
    one.check([])
    assert one.load(None).shown == [Example([{"role": "user", "content": "1+1="}], "2")]  # type: ignore[arg-type]
    with pytest.raises(UserError, match="no example"):
        ExampleOptions(file=str(rows), n=2).load(None)  # type: ignore[arg-type]
