"""Prompts as literal tokens, and templates that must be refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.generation import Engine
from w2s_align.generation.chat import Chat
from w2s_align.generation.chat_audit import audit
from w2s_align.generation.models import find_model

QUESTION = [{"role": "user", "content": "1+2="}]
CHAT_TEMPLATE = (  # the tiny model's own
    "{{ bos_token }}"
    "{% for m in messages %}{{ '<' + m['role'] + '>' + m['content'] }}{% if m['role'] == 'assistant' %}</s>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
CHATML = (
    "{% for m in messages %}{{ '<user>' if m['role'] == 'user' else '<assistant>' }}{{ m['content'] }}</s>{% endfor %}"
    "{% if add_generation_prompt %}<assistant>{% endif %}"
)


def edit_json(path: Path, **values: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def chat_of(folder: Path, template: str | None = None, **options: object) -> Chat:
    if template is not None:
        (folder / "chat_template.jinja").write_text(template)
    return Chat(find_model(folder), Engine(**options))


def test_a_prompt_as_tokens(tiny_model: Path) -> None:
    chat = chat_of(tiny_model)
    # <s> <user> 1 + 2 = <assistant>
    assert chat.render(QUESTION) == [2, 4, 8, 17, 9, 18, 5]
    assert chat.show([2, 4, 8]) == "2 '<s>' | 4 '<user>' | 8 '1'"
    assert audit(chat, [QUESTION]) == []


def test_the_system_prompt_comes_first_unless_the_prompt_has_one(tiny_model: Path) -> None:
    chat = chat_of(tiny_model, system_prompt="ab")
    assert chat.render(QUESTION) == [2, 6, 23, 24, 4, 8, 17, 9, 18, 5]
    assert chat.render([{"role": "system", "content": "b"}, *QUESTION]) == [2, 6, 24, 4, 8, 17, 9, 18, 5]


def test_template_kwargs_reach_the_template(model_copy: Path) -> None:
    template = CHAT_TEMPLATE + "{% if brief %}a{% endif %}"
    assert chat_of(model_copy, template, chat_template_kwargs={"brief": True}).render(QUESTION)[-2:] == [5, 23]
    assert chat_of(model_copy, template).render(QUESTION)[-1] == 5


def test_stop_tokens_come_from_all_three_places(model_copy: Path) -> None:
    edit_json(model_copy / "generation_config.json", eos_token_id=[3, 6])
    template = CHAT_TEMPLATE.replace("</s>", "<user>")  # an end of turn that no file names
    assert chat_of(model_copy, template).stop_token_ids() == [3, 4, 6]


def test_two_bos_are_refused_with_the_tokens(model_copy: Path) -> None:
    with pytest.raises(UserError, match=r"two BOS tokens: 2 '<s>' \| 2 '<s>' \| 4 '<user>'"):
        audit(chat_of(model_copy, "{{ bos_token }}" + CHAT_TEMPLATE), [QUESTION])


def test_a_template_without_generation_prompt_is_refused(model_copy: Path) -> None:
    template = CHATML.replace("{% if add_generation_prompt %}<assistant>{% endif %}", "")
    with pytest.raises(UserError, match=r"ignores add_generation_prompt.*18 '='"):
        audit(chat_of(model_copy, template), [QUESTION])


def test_a_template_that_needs_no_generation_prompt_passes(model_copy: Path) -> None:
    # As Mistral's: the answer follows the prompt directly.
    template = "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}<user>{{ m['content'] }}<assistant>"
    template += "{% else %}{{ m['content'] }}</s>{% endif %}{% endfor %}"
    assert audit(chat_of(model_copy, template), [QUESTION]) == []


def test_a_prompt_that_is_no_prefix_is_refused_or_let_pass_with_a_warning(model_copy: Path) -> None:
    template = CHAT_TEMPLATE.replace("<assistant>{% endif %}", "<assistant>a{% endif %}")  # as a forced "<think>"
    with pytest.raises(UserError, match=r"from token 7 on.*23 'a'.*8 '1'"):
        audit(chat_of(model_copy, template), [QUESTION])
    assert len(audit(chat_of(model_copy, audit="warn"), [QUESTION, QUESTION])) == 1


def test_a_template_that_raises_is_explained(model_copy: Path) -> None:
    template = (
        "{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        + CHAT_TEMPLATE
    )
    with pytest.raises(UserError, match=r"system > user.*System role not supported.*system_prompt"):
        chat_of(model_copy, template, system_prompt="a").render(QUESTION)


def test_a_long_turn_is_cut_on_the_asked_side(tiny_model: Path) -> None:
    chat = chat_of(tiny_model)
    messages = [{"role": "user", "content": "abcdef"}]
    assert chat.cut(messages, 6, "cut_left") == chat.render([{"role": "user", "content": "def"}])
    assert chat.cut(messages, 6, "cut_right") == chat.render([{"role": "user", "content": "abc"}])
    assert chat.cut(messages, 3, "cut_left") is None


def test_unknown_characters_are_seen(tiny_model: Path) -> None:
    chat = chat_of(tiny_model)
    assert chat.has_unknown_tokens(chat.render([{"role": "user", "content": "1 & 2"}]))
    assert not chat.has_unknown_tokens(chat.render(QUESTION))


def test_a_folder_without_tokenizer(model_copy: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (model_copy / name).unlink()
    with pytest.raises(UserError, match=r"has no tokenizer.*save_pretrained"):
        chat_of(model_copy)


def test_a_tokenizer_without_chat_template(model_copy: Path) -> None:
    (model_copy / "chat_template.jinja").unlink()
    with pytest.raises(UserError, match=r"has no chat template.*instruct"):
        chat_of(model_copy)


def test_models_that_are_not_there(model_copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"There is no model folder ./nowhere"):
        find_model("./nowhere")
    with pytest.raises(
        UserError,
        match=r"nobody/nothing is not a local folder and could not be downloaded.*HF_HUB_OFFLINE",
    ):
        find_model("nobody/nothing")
    (model_copy / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"no \*.safetensors weights"):
        find_model(model_copy)
    (model_copy / "config.json").unlink()
    with pytest.raises(UserError, match=r"has no config.json"):
        find_model(model_copy)


def test_the_stored_dtype_is_found(model_copy: Path) -> None:
    assert find_model(model_copy).stored_dtype() == "float32"
    edit_json(model_copy / "config.json", dtype="bfloat16")
    assert find_model(model_copy).stored_dtype() == "bfloat16"
    config = json.loads((model_copy / "config.json").read_text())
    del config["dtype"]
    (model_copy / "config.json").write_text(json.dumps(config))
    assert find_model(model_copy).stored_dtype() == "float32"  # read from the weights' own header
