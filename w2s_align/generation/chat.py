"""Turn prompts into token ids with the model's own chat template, once.

Input: messages. Output: token ids that every engine takes unchanged, and the ids that end a response. Only text is
passed from one model to another, so a rendered prompt never leaves this package.

    chat = Chat(find_model("Qwen/Qwen2.5-0.5B-Instruct"), Engine())
    chat.render([{"role": "user", "content": "What is 2 + 2?"}])
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal

from w2s_align.errors import UserError
from w2s_align.generation.models import TOKENIZER_FILES, ModelFiles
from w2s_align.generation.reasoning import Splitter
from w2s_align.generation.settings import Engine
from w2s_align.records import Message


class Chat:
    """A model's tokenizer and chat template.

    Args:
        model: The model.
        engine: ``system_prompt``, ``chat_template_kwargs``, ``prefill``, ``thinking``, ``think_tags`` and
            ``trust_remote_code`` are used.

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
        """Return the token ids of a chat.

        Args:
            messages: The chat.
            generation_prompt: Whether the model is to continue it; False for a finished chat.

        Raises:
            UserError: The template refuses the chat (e.g. a system message that it does not support).
        """
        return self.render_batch([messages], generation_prompt=generation_prompt)[0]

    def render_with_response(self, messages: Sequence[Message], response: str) -> list[int]:
        """Return the token ids of a prompt together with a response to it."""
        return self.render([*messages, {"role": "assistant", "content": response}], generation_prompt=False)

    def render_batch(self, chats: Sequence[Sequence[Message]], *, generation_prompt: bool = True) -> list[list[int]]:
        """Return the token ids of many chats; see :meth:`render`."""
        return self._tokens(self._texts(chats, generation_prompt))

    def splitter(self, messages: Sequence[Message]) -> Splitter:
        """Return how responses are split, with the start of a response that the prompt already contains.

        Args:
            messages: Any prompt of the job: the text before a response is the same for all.
        """
        opened, closed = self.engine.think_tags
        prompt = self._texts([messages], True)[0].removesuffix(self.engine.prefill)
        bare = self._texts([messages], False)[0]
        generation_prompt = prompt[common_prefix(prompt, bare) :]
        at = generation_prompt.rfind(opened)
        is_open = at >= 0 and closed not in generation_prompt[at:]  # Qwen 3 without thinking writes both tags
        opening = (generation_prompt[at:] if is_open else "") + self.engine.prefill
        return Splitter(self.engine.thinking, self.engine.think_tags, opening)

    def stop_token_ids(self) -> list[int]:
        """Return the ids that end a response, from the model's files, the tokenizer and the template's end of turn."""
        ids = self.model.eos_token_ids()
        if self.tokenizer.eos_token_id is not None:
            ids.add(self.tokenizer.eos_token_id)
        end_of_turn = self._end_of_turn()
        if end_of_turn is not None:
            ids.add(end_of_turn)
        return sorted(ids)

    def show(self, ids: Sequence[int]) -> str:
        """Return tokens with their ids, readable for a person: ``1 '<s>' | 530 'Hello'``."""
        tokens = self.tokenizer.convert_ids_to_tokens(list(ids))
        return " | ".join(f"{i} {token!r}" for i, token in zip(ids, tokens, strict=True))

    def decode(self, ids: Sequence[int]) -> str:
        """Return the text of tokens, special ones included."""
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=False))

    def has_unknown_tokens(self, ids: Sequence[int]) -> bool:
        """Return whether a prompt has characters that are not in the vocabulary; the model cannot see them."""
        return self._unknown is not None and self._unknown in ids

    def cut(self, messages: Sequence[Message], limit: int, side: Literal["cut_left", "cut_right"]) -> list[int] | None:
        """Shorten the longest message (not the system's) on one side until the chat has at most ``limit`` tokens.

        The template's own tokens stay whole, which cutting the rendered ids would not do.

        Args:
            messages: The chat.
            limit: Tokens that it may have.
            side: On which side of the message tokens are removed.

        Returns:
            The rendered ids, or None when the rest of the chat alone is too long.
        """
        chat = [dict(message) for message in messages]
        turns = [i for i, message in enumerate(chat) if message["role"] != "system"]
        contents = {i: self.tokenizer(chat[i]["content"], add_special_tokens=False)["input_ids"] for i in turns}
        longest = max(turns, key=lambda i: len(contents[i]))
        content = contents[longest]
        ids = self.render(chat)
        # Once is not enough: text that was cut between two tokens can be tokenized into more of them.
        while len(ids) > limit:
            keep = len(content) - (len(ids) - limit)
            if keep <= 0:
                return None
            content = content[-keep:] if side == "cut_left" else content[:keep]
            chat[longest]["content"] = self.tokenizer.decode(content, skip_special_tokens=False)
            ids = self.render(chat)
        return ids

    def special_ids(self) -> set[int]:
        """Return the ids of the special tokens, which engines leave out of the text."""
        return {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    def _end_of_turn(self) -> int | None:
        """Return the first special token that the template writes after a response."""
        question: list[Message] = [{"role": "user", "content": "1"}]
        try:
            full = self.render_with_response(question, "1")
            prompt = self.render(question)
        except UserError:
            return None  # a template that refuses this chat is reported with the first real prompt
        think_tags = {self.tokenizer.convert_tokens_to_ids(tag) for tag in self.engine.think_tags}
        ends = self.special_ids() - think_tags - {self.tokenizer.unk_token_id}
        return next((i for i in full[common_prefix(prompt, full) :] if i in ends), None)

    def _texts(self, chats: Sequence[Sequence[Message]], generation_prompt: bool) -> list[str]:
        full = [self._with_system_prompt(messages) for messages in chats]
        try:
            texts = self.tokenizer.apply_chat_template(
                full,
                add_generation_prompt=generation_prompt,
                tokenize=False,
                **self.engine.chat_template_kwargs,
            )
        except Exception as error:  # a template is a program of the model's authors: it may raise anything
            raise UserError(
                f"The chat template of {self.model.name} cannot render a prompt with the messages "
                f"{_roles_of_first_failure(self, full, generation_prompt)}.",
                why=f"{type(error).__name__}: {error}",
                fix="Remove or merge the messages that it does not support (often system messages, or system_prompt), "
                "or check chat_template_kwargs.",
            ) from error
        prefill = self.engine.prefill if generation_prompt else ""
        return [str(text) + prefill for text in texts]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        # The template writes BOS itself; a tokenizer that adds its own would double it.
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def _with_system_prompt(self, messages: Sequence[Message]) -> list[Message]:
        system = self.engine.system_prompt
        if system is None or messages[0]["role"] == "system":
            return list(messages)
        return [{"role": "system", "content": system}, *messages]


def common_prefix(one: Sequence[object], other: Sequence[object]) -> int:
    """Return the length of the longest common prefix of two sequences of tokens (or characters)."""
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _load_tokenizer(model: ModelFiles, trust_remote_code: bool) -> Any:
    folder = model.tokenizer_folder
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise UserError(
            f"The model folder {folder} has no tokenizer.",
            why=f"It has none of {', '.join(TOKENIZER_FILES)}.",
            fix="Save the tokenizer into the same folder: tokenizer.save_pretrained(folder).",
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, ImportError) as error:
        raise UserError(
            f"The tokenizer of {model.name} cannot be loaded.",
            why=f"{type(error).__name__}: {error}",
            fix="Download or save it again; a tokenizer with code of its own needs trust_remote_code: true.",
        ) from error
    if not tokenizer.chat_template:
        raise UserError(
            f"The tokenizer of {model.name} has no chat template.",
            why="The template says how the model expects a chat; base models have none.",
            fix="Use the instruct version of the model, or put a chat_template.jinja into its folder.",
        )
    return tokenizer


def _roles_of_first_failure(chat: Chat, chats: Sequence[Sequence[Message]], generation_prompt: bool) -> str:
    for messages in chats:
        try:
            chat.tokenizer.apply_chat_template(
                list(messages),
                add_generation_prompt=generation_prompt,
                tokenize=False,
                **chat.engine.chat_template_kwargs,
            )
        except Exception:  # the caller reports the error itself
            return " > ".join(message["role"] for message in messages)
    return "of this batch"
