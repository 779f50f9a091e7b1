"""Turn prompts into token ids with the model's own chat template, once, and check them before anything is generated.

Input: messages. Output: token ids that every engine takes as they are, and the ids that end an answer. Only text
crosses from one model to another, so a rendered prompt never leaves this package.

    chat = Chat(find_model("Qwen/Qwen2.5-0.5B-Instruct"), Engine())
    chat.render([{"role": "user", "content": "What is 2 + 2?"}])
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from w2s_align.errors import UserError
from w2s_align.generation.models import TOKENIZER_FILES, ModelFiles
from w2s_align.generation.reasoning import Splitter
from w2s_align.generation.settings import Engine
from w2s_align.records import Message

AUDITED_ROWS = 64


class Chat:
    """A model's tokenizer and chat template.

    Args:
        model: The model.
        engine: ``system_prompt``, ``chat_template_kwargs``, ``prefill``, ``thinking``, ``think_tags``, ``audit`` and
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
        """Return the token ids of a chat, ready to be continued by the model, or of a finished one.

        Raises:
            UserError: The template refuses the chat (e.g. a system turn that it does not know).
        """
        return self.render_batch([messages], generation_prompt=generation_prompt)[0]

    def render_batch(self, chats: Sequence[Sequence[Message]], *, generation_prompt: bool = True) -> list[list[int]]:
        """Return the token ids of many chats; see :meth:`render`."""
        return self._tokens(self._texts(chats, generation_prompt))

    def splitter(self, messages: Sequence[Message]) -> Splitter:
        """Return how answers are taken apart, with the beginning of an answer that this prompt holds already.

        Args:
            messages: Any prompt of the job: what stands before an answer is the same for all.
        """
        opened, closed = self.engine.think_tags
        prompt = self._texts([messages], True)[0].removesuffix(self.engine.prefill)
        bare = self._texts([messages], False)[0]
        generation_prompt = prompt[_shared(prompt, bare) :]
        at = generation_prompt.rfind(opened)
        thinks = at >= 0 and closed not in generation_prompt[at:]
        opening = (generation_prompt[at:] if thinks else "") + self.engine.prefill
        return Splitter(self.engine.thinking, self.engine.think_tags, opening)

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

        Refused are two BOS tokens in a row, a missing generation prompt, a prompt that is no token prefix of the
        same prompt with an answer (a trainer would compute its loss on other tokens than the model has written), and
        tags of thoughts that cannot be seen in an answer. A template that writes the opening tag of a thought itself
        and leaves thoughts out of the answers that it renders again is sound for generation: that is a warning.

        Returns:
            What was found, each with the tokens; with ``Engine.audit`` set to ``warn`` also what would be refused.

        Raises:
            UserError: Something was found that is refused.
        """
        self._check_tags()
        found = [self._audit_one(messages) for messages in chats[:AUDITED_ROWS]]
        findings = [finding for finding in found if finding is not None]
        refused = [finding.text for finding in findings if finding.refused]
        if refused and self.engine.audit == "refuse":
            raise UserError(
                f"The chat template of {self.model.name} renders prompts in a way that gives wrong data "
                f"({len(refused)} of the first {min(len(chats), AUDITED_ROWS)}).",
                why=refused[0],
                fix="Repair chat_template.jinja of the model, set chat_template_kwargs (e.g. enable_thinking), "
                + ("let the prefill end in a whole token, without a space, " if self.engine.prefill else "")
                + "or set audit: warn if this is what you want.",
            )
        return sorted({finding.text for finding in findings})

    def _audit_one(self, messages: Sequence[Message]) -> _Finding | None:
        prompt = self.render(messages)
        bos = self.tokenizer.bos_token_id
        if bos is not None and prompt[:2] == [bos, bos]:
            return _Finding(f"A prompt begins with two BOS tokens: {self.show(prompt[:8])}")
        answer = self._probe_answer(messages)
        full = self._finished(messages, answer)
        same = _shared(prompt, full)
        if same < len(prompt):
            opened, closed = self.engine.think_tags
            thoughtful = f"{opened}\n{answer.removeprefix(opened).strip()}\n{closed}\n\n{answer.split()[-1]}"
            if _shared(prompt, self._finished(messages, thoughtful)) == len(prompt):
                return None
            near = slice(max(0, same - 3), same + 5)
            tokens = f"the prompt has {self.show(prompt[near])}; with an answer it has {self.show(full[near])}"
            before_thought = self.decode(prompt).rpartition(opened)[0]
            if self.splitter(messages).opening.startswith(opened) and self.decode(full).startswith(before_thought):
                return _Finding(
                    f"The template begins a thought ({opened}) in the prompt and leaves it out of the answers that it "
                    f"renders: generation is right, but training on these answers with this template would not see "
                    f"their thoughts: {tokens}",
                    refused=False,
                )
            return _Finding(
                f"A prompt is not the beginning of the same prompt with an answer, from token {same} on: {tokens}"
            )
        rest = self.decode(full[len(prompt) :]).lstrip()
        bare = self.render(messages, generation_prompt=False)
        if prompt == bare and not rest.startswith((answer, self.engine.think_tags[0])):
            return _Finding(
                f"The template ignores add_generation_prompt: the model would continue after {self.show(prompt[-6:])}"
            )
        return None

    def _check_tags(self) -> None:
        """Refuse tags that engines leave out of the text, as they do with all special tokens."""
        special = {self.tokenizer.added_tokens_decoder[i].content for i in self._special_ids()}
        hidden = [tag for tag in self.engine.think_tags if tag in special]
        if hidden and self.engine.thinking != "keep":
            raise UserError(
                f"Thoughts of {self.model.name} cannot be told from its answers: {' and '.join(hidden)} are special "
                "tokens, which have no text in an answer.",
                fix="Serve the model with a reasoning parser and use the openai engine, or set engine.thinking: keep.",
            )

    def _end_of_turn(self) -> int | None:
        """The first special token that the template writes after an answer."""
        question: list[Message] = [{"role": "user", "content": "1"}]
        try:
            full = self._finished(question, "1")
            prompt = self.render(question)
        except UserError:
            return None  # a template that refuses this chat will be heard of with the first real prompt
        thought = {self.tokenizer.convert_tokens_to_ids(tag) for tag in self.engine.think_tags}
        ends = self._special_ids() - thought - {self.tokenizer.unk_token_id}
        return next((i for i in full[_shared(prompt, full) :] if i in ends), None)

    def _special_ids(self) -> set[int]:
        return {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}

    def _finished(self, messages: Sequence[Message], answer: str) -> list[int]:
        return self.render([*messages, {"role": "assistant", "content": answer}], generation_prompt=False)

    def _probe_answer(self, messages: Sequence[Message]) -> str:
        """An answer of the prompt's first word: a character tokenizer may not know the letters of another."""
        words = messages[-1]["content"].split()
        word = words[0][:12] if words else "1"
        prefill = self.engine.prefill
        return prefill + ("" if not prefill or prefill[-1].isspace() else " ") + word

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
                f"The chat template of {self.model.name} cannot render a prompt with the turns "
                f"{_roles_of_first_failure(self, full, generation_prompt)}.",
                why=f"{type(error).__name__}: {error}",
                fix="Remove or merge the turns that it does not take (often the system turn or system_prompt), "
                "or check chat_template_kwargs.",
            ) from error
        prefill = self.engine.prefill if generation_prompt else ""
        return [str(text) + prefill for text in texts]

    def _tokens(self, texts: list[str]) -> list[list[int]]:
        # The template writes BOS itself: a tokenizer that adds its own would make it two.
        return [list(ids) for ids in self.tokenizer(texts, add_special_tokens=False)["input_ids"]]

    def _with_system_prompt(self, messages: Sequence[Message]) -> list[Message]:
        system = self.engine.system_prompt
        if system is None or messages[0]["role"] == "system":
            return list(messages)
        return [{"role": "system", "content": system}, *messages]


class _Finding(NamedTuple):
    text: str
    refused: bool = True


def _shared(one: Sequence[object], other: Sequence[object]) -> int:
    """Return how many tokens (or characters) two sequences have in common at their beginning."""
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _load_tokenizer(model: ModelFiles, trust_remote_code: bool) -> Any:
    folder = model.tokenizer_folder
    if not any((folder / name).exists() for name in TOKENIZER_FILES):
        raise UserError(
            f"The model folder {folder} has no tokenizer.",
            why=f"None of {', '.join(TOKENIZER_FILES)} is there.",
            fix="Save the tokenizer into the same folder: tokenizer.save_pretrained(folder).",
        )
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(str(folder), trust_remote_code=trust_remote_code)
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
