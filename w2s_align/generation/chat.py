"""Turn prompts into token ids with the model's own chat template, once, and check them before anything is generated.

Input: messages. Output: token ids that every engine takes as they are, and the ids that end an answer. Only text
crosses from one model to another, so a rendered prompt never leaves this package.

    chat = Chat(find_model("Qwen/Qwen2.5-0.5B-Instruct"), Engine())
    chat.render([{"role": "user", "content": "What is 2 + 2?"}])
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

from w2s_align.errors import UserError
from w2s_align.generation.models import ModelFiles
from w2s_align.generation.settings import Engine
from w2s_align.records import Message

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "tokenizer.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
)
AUDITED_ROWS = 64


class Chat:
    """A model's tokenizer and chat template.

    Args:
        model: The model.
        engine: ``system_prompt``, ``chat_template_kwargs`` and ``trust_remote_code`` are used.

    Raises:
        UserError: The model has no tokenizer, or its tokenizer has no chat template.
    """

    def __init__(self, model: ModelFiles, engine: Engine) -> None:
        self.model = model
        self.engine = engine
        self.tokenizer = _load_tokenizer(model, engine.trust_remote_code)
        ordinary = {self.tokenizer.bos_token_id, self.tokenizer.eos_token_id, self.tokenizer.pad_token_id}
        unknown = self.tokenizer.unk_token_id
        self._unknown = None if unknown in ordinary else unknown  # GPT-2 uses one id for all of them

    @property
    def template_digest(self) -> str:
        """Digest of the template's text: two models with the same one render alike."""
        return hashlib.sha256(str(self.tokenizer.chat_template).encode()).hexdigest()[:16]

    def render(self, messages: Sequence[Message], *, generation_prompt: bool = True) -> list[int]:
        """Return the token ids of a chat, ready to be continued by the model.

        Raises:
            UserError: The template refuses the chat (e.g. a system turn that it does not know).
        """
        return self.render_batch([messages], generation_prompt=generation_prompt)[0]

    def render_batch(self, chats: Sequence[Sequence[Message]], *, generation_prompt: bool = True) -> list[list[int]]:
        """Return the token ids of many chats; see :meth:`render`."""
        full = [self._with_system_prompt(messages) for messages in chats]
        try:
            # return_dict: transformers 5 returns a mapping anyway, 4 a bare list
            # (https://github.com/huggingface/transformers/issues/41626).
            encoded = self.tokenizer.apply_chat_template(
                full,
                add_generation_prompt=generation_prompt,
                tokenize=True,
                return_dict=True,
                **self.engine.chat_template_kwargs,
            )
        except Exception as error:  # a template is a program of the model's authors: it may raise anything
            raise UserError(
                f"The chat template of {self.model.name} cannot render a prompt with the turns "
                f"{_roles_of_first_failure(self, full, generation_prompt)}.",
                why=f"{type(error).__name__}: {error}",
                fix="Remove or merge the turns that it does not take (often the system turn or system_prompt), "
                "or check chat_template_kwargs.",
            ) from error
        return [list(ids) for ids in encoded["input_ids"]]

    def stop_token_ids(self) -> list[int]:
        """Return the ids that end an answer: of the model's files, the tokenizer, and the template's end of turn."""
        ids = self.model.eos_token_ids()
        if self.tokenizer.eos_token_id is not None:
            ids.add(self.tokenizer.eos_token_id)
        end_of_turn = self._end_of_turn()
        if end_of_turn is not None:
            ids.add(end_of_turn)
        return sorted(ids)

    def show(self, ids: Sequence[int]) -> str:
        """Return tokens with their ids, as a person can read them: ``1 '<s>' | 530 'Hello'``."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(ids))
        return " | ".join(f"{i} {token!r}" for i, token in zip(ids, tokens, strict=True))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def has_unknown_tokens(self, ids: Sequence[int]) -> bool:
        """Return whether a prompt has characters that the vocabulary does not have; the model cannot see them."""
        return self._unknown is not None and self._unknown in ids

    def cut(self, messages: Sequence[Message], limit: int, side: Literal["cut_left", "cut_right"]) -> list[int] | None:
        """Shorten the longest turn (not the system's) on one side until the chat has at most ``limit`` tokens.

        The template's own tokens stay whole, which cutting the rendered ids would not do.

        Returns:
            The rendered ids, or None when the rest of the chat alone is too long.
        """
        chat = [dict(message) for message in messages]
        turns = [i for i, message in enumerate(chat) if message["role"] != "system"]
        contents = {i: self.tokenizer(chat[i]["content"], add_special_tokens=False)["input_ids"] for i in turns}
        longest = max(turns, key=lambda i: len(contents[i]))
        content = contents[longest]
        ids = self.render(chat)
        while len(ids) > limit:
            keep = len(content) - (len(ids) - limit)
            if keep <= 0:
                return None
            content = content[-keep:] if side == "cut_left" else content[:keep]
            chat[longest]["content"] = self.tokenizer.decode(content, skip_special_tokens=False)
            ids = self.render(chat)
        return ids

    def audit(self, chats: Sequence[Sequence[Message]]) -> list[str]:
        """Look at the first rendered prompts for the mistakes that ruin preference data without a sound.

        Checked are two BOS tokens in a row, a missing generation prompt, and a prompt that is no token prefix of the
        same prompt with an answer: a trainer would then compute its loss on other tokens than the model has written.

        Returns:
            What was found, each with the tokens; with ``Engine.audit`` set to ``warn`` only.

        Raises:
            UserError: Something was found and ``Engine.audit`` is ``refuse``.
        """
        findings: list[str] = []
        for messages in chats[:AUDITED_ROWS]:
            finding = self._audit_one(messages)
            if finding is not None:
                findings.append(finding)
        if findings and self.engine.audit == "refuse":
            raise UserError(
                f"The chat template of {self.model.name} renders prompts in a way that gives wrong data "
                f"({len(findings)} of the first {min(len(chats), AUDITED_ROWS)}).",
                why=findings[0],
                fix="Repair chat_template.jinja of the model, set chat_template_kwargs (e.g. enable_thinking), "
                "or set audit: warn if this is what you want.",
            )
        return sorted(set(findings))

    def _audit_one(self, messages: Sequence[Message]) -> str | None:
        prompt = self.render(messages)
        bos = self.tokenizer.bos_token_id
        if bos is not None and prompt[:2] == [bos, bos]:
            return f"A prompt begins with two BOS tokens: {self.show(prompt[:8])}"
        answer = _probe_answer(messages)
        full = self.render([*messages, {"role": "assistant", "content": answer}], generation_prompt=False)
        same = next(
            (i for i, (a, b) in enumerate(zip(prompt, full, strict=False)) if a != b), min(len(prompt), len(full))
        )
        if same < len(prompt):
            near = slice(max(0, same - 3), same + 5)
            return (
                f"A prompt is not the beginning of the same prompt with an answer, from token {same} on: "
                f"the prompt has {self.show(prompt[near])}; with an answer it has {self.show(full[near])}"
            )
        rest = self.decode(full[len(prompt) :]).lstrip()
        if prompt == self.render(messages, generation_prompt=False) and not rest.startswith((answer, "<think>")):
            return (
                f"The template ignores add_generation_prompt: the model would continue after {self.show(prompt[-6:])}"
            )
        return None

    def _end_of_turn(self) -> int | None:
        """The first special token that the template writes after an answer."""
        question: list[Message] = [{"role": "user", "content": "1"}]
        try:
            full = self.render([*question, {"role": "assistant", "content": "1"}], generation_prompt=False)
            prompt = self.render(question)
        except UserError:
            return None  # a template that refuses this chat will be heard of with the first real prompt
        if full[: len(prompt)] != prompt:
            return None
        special = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        return next((i for i in full[len(prompt) :] if i in special and i != self.tokenizer.unk_token_id), None)

    def _with_system_prompt(self, messages: Sequence[Message]) -> list[Message]:
        system = self.engine.system_prompt
        if system is None or messages[0]["role"] == "system":
            return list(messages)
        return [{"role": "system", "content": system}, *messages]


def _load_tokenizer(model: ModelFiles, trust_remote_code: bool) -> Any:
    if not any((model.folder / name).exists() for name in TOKENIZER_FILES):
        raise UserError(
            f"The model folder {model.folder} has no tokenizer.",
            why=f"None of {', '.join(TOKENIZER_FILES)} is there.",
            fix="Save the tokenizer into the same folder: tokenizer.save_pretrained(folder).",
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(model.folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"The tokenizer of {model.name} cannot be loaded.",
            why=f"{type(error).__name__}: {error}",
            fix="Fetch or save it again; a tokenizer with its own code needs trust_remote_code: true.",
        ) from error
    if not tokenizer.chat_template:
        raise UserError(
            f"The tokenizer of {model.name} has no chat template.",
            why="Without one there is no right way to put a chat to the model; base models have none.",
            fix="Use the model's instruct version, or put a chat_template.jinja into its folder.",
        )
    return tokenizer


def _probe_answer(messages: Sequence[Message]) -> str:
    """The prompt's first word as an answer: a character tokenizer may not know the letters of another."""
    words = messages[-1]["content"].split()
    return words[0][:12] if words else "1"


def _roles_of_first_failure(chat: Chat, chats: Sequence[Sequence[Message]], generation_prompt: bool) -> str:
    for messages in chats:
        try:
            chat.tokenizer.apply_chat_template(
                list(messages),
                add_generation_prompt=generation_prompt,
                tokenize=False,
                **chat.engine.chat_template_kwargs,
            )
        except Exception:  # the error itself is in the caller's hands
            return " > ".join(message["role"] for message in messages)
    return "of this batch"
