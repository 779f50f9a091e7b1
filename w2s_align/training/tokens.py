"""Chats to tokens with the student's own template, and the checks that the tokens mean what the chat means.

Reads messages and a tokenizer; writes nothing. The rendering is the one that TRL's trainers do, so what is checked is
what is trained on. A template can break training silently in four ways, each found here: the prompt is not a prefix of
prompt + answer, BOS is doubled, the end-of-turn is missing, or it is doubled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Literal

from w2s_align.errors import UserError
from w2s_align.records import Message

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXPLANATIONS = {
    "not_prefix": "The chat template renders the prompt differently alone than followed by its answer: the model "
    "would train on a context that it never sees when it generates.",
    "double_bos": "The text starts with two BOS tokens: template and tokenizer both add one.",
    "no_end_of_turn": "The answer does not end with an end-of-turn token: the model would never learn to stop.",
    "double_end_of_turn": "The answer ends with two end-of-turn tokens.",
}
"""What each problem of a chat template does to a training."""


@dataclass(frozen=True, slots=True)
class Answer:
    """One tokenized row: what the model reads, and from where on it is trained."""

    ids: list[int]
    """Prompt and response."""
    start: int
    """Index of the first response token; everything from here on carries loss, but for what ``others`` says."""
    others: tuple[tuple[int, int], ...] = ()
    """Begin and end of what tools and the user say inside a response of several turns: read, not learned."""

    def has_loss(self, index: int) -> bool:
        """Say whether a token carries loss."""
        return index >= self.start and not any(begin <= index < end for begin, end in self.others)

    def others_before(self, limit: int | None) -> int:
        """Return the number of tokens of others inside the response, of a row that is cut at ``limit``."""
        return sum(max(0, min(end, limit or end) - begin) for begin, end in self.others)


@dataclass
class ChatEncoder:
    """Tokenizes chats with one template and audits the result.

    Args:
        tokenizer: The student's tokenizer, with its chat template.
        stop_ids: Tokens at which the student's generation ends.
        template_kwargs: Arguments of the chat template.
        on_problem: ``error`` raises at the first problem, ``warn`` counts it in ``problems``.
    """

    tokenizer: PreTrainedTokenizerBase
    stop_ids: frozenset[int]
    template_kwargs: dict[str, Any] = field(default_factory=dict)
    on_problem: Literal["error", "warn"] = "error"
    problems: Counter[str] = field(default_factory=Counter)
    examples: dict[str, str] = field(default_factory=dict)
    _blank: dict[int, bool] = field(default_factory=dict)

    def __post_init__(self) -> None:
        marked = {i for i, token in self.tokenizer.added_tokens_decoder.items() if token.special}
        self.ends = self.stop_ids | marked | set(self.tokenizer.all_special_ids)
        self.unstoppable: Counter[int] = Counter()

    def encode(self, prompts: Sequence[list[Message]], *sides: Sequence[list[Message]]) -> list[tuple[Answer, ...]]:
        """Tokenize prompts with one or more answers each.

        Args:
            prompts: Messages up to the last user turn.
            *sides: For each side, one answer (a list with the assistant's turn, or with several turns) per prompt.

        Returns:
            For each prompt one :class:`Answer` per side; all sides of a prompt share ``start``.

        Raises:
            UserError: The template is wrong for a row and ``on_problem`` is ``error``, or it cannot render a chat.
        """
        if not prompts:
            return []
        alone = self._tokenize(prompts, add_generation_prompt=True)
        full = [self._tokenize([[*p, *a] for p, a in zip(prompts, side, strict=True)]) for side in sides]
        rows = []
        for prompt_ids, *side_ids in zip(alone, *full, strict=True):
            start = min(_common_prefix(prompt_ids, ids) for ids in side_ids)
            for ids in side_ids:
                self._audit(prompt_ids, ids, start)
            rows.append(tuple(Answer(ids, start) for ids in side_ids))
        return rows

    def encode_turns(
        self, prompts: Sequence[list[Message]], *sides: Sequence[list[Message]]
    ) -> list[tuple[Answer, ...] | None]:
        """Tokenize prompts with one or more responses each, which may hold several turns of the assistant.

        Each turn of the assistant in a response carries loss; what users and tools say between them does not.

        Args:
            prompts: Messages up to the first turn that is learned.
            *sides: For each side, one response per prompt: turns of which the first and the last are the assistant's.

        Returns:
            As for :meth:`encode`; None where the template renders an earlier turn differently once another one
            follows (some remove earlier thoughts): what was said then is not what is read.

        Raises:
            UserError: As for :meth:`encode`.
        """
        rows: list[tuple[Answer, ...] | None] = list(self.encode(prompts, *sides))
        places = [
            (number, which, at)
            for which, side in enumerate(sides)
            for number, response in enumerate(side)
            for at in range(len(response))
            if len(response) > 1 and response[at]["role"] == "assistant"
        ]
        encoded = self.encode(
            [[*prompts[n], *sides[which][n][:at]] for n, which, at in places],
            [sides[which][n][at : at + 1] for n, which, at in places],
        )
        turns: dict[tuple[int, int], list[Answer]] = {}
        for (number, which, _), (turn,) in zip(places, encoded, strict=True):
            turns.setdefault((number, which), []).append(turn)
        for (number, which), own in turns.items():
            row = rows[number]
            if row is None:
                continue
            whole = row[which]
            if any(whole.ids[: len(turn.ids)] != turn.ids for turn in own):
                rows[number] = None
                continue
            gaps = ((len(turn.ids), later.start) for turn, later in pairwise(own))
            others = tuple((begin, end) for begin, end in gaps if end > begin)
            rows[number] = (*row[:which], Answer(whole.ids, whole.start, others), *row[which + 1 :])
        return rows

    def prompts(self, chats: Sequence[list[Message]]) -> list[list[int]]:
        """Tokenize prompts alone, up to where an answer begins.

        Raises:
            UserError: The template cannot render a chat.
        """
        return self._tokenize(chats, add_generation_prompt=True)

    def notes(self) -> list[str]:
        """Return one sentence per kind of problem that was found and allowed."""
        found = [
            f"{count} rows: {EXPLANATIONS[kind]} For example: {self.examples[kind]}"
            for kind, count in self.problems.items()
        ]
        for token, count in self.unstoppable.items():
            found.append(
                f"{count} answers end with {self.tokenizer.convert_ids_to_tokens(token)!r}, at which the student's "
                "generation config does not stop: add its id to eos_token_id in generation_config.json."
            )
        return found

    def _tokenize(self, chats: Sequence[list[Message]], add_generation_prompt: bool = False) -> list[list[int]]:
        try:
            texts = self.tokenizer.apply_chat_template(
                list(chats), tokenize=False, add_generation_prompt=add_generation_prompt, **self.template_kwargs
            )
        except Exception as error:  # jinja2 raises its own classes, templates raise by raise_exception()
            roles = sorted({" > ".join(message["role"] for message in chat) for chat in chats})
            raise UserError(
                "The student's chat template refuses a chat of the data.",
                f"It says: {error}. Roles in these chats: {'; '.join(roles[:5])}.",
                "Use chats that the template knows, or a student with another template.",
            ) from error
        # As in apply_chat_template(tokenize=True): the template has written the special tokens already.
        ids: list[list[int]] = self.tokenizer(texts, add_special_tokens=False)["input_ids"]
        return ids

    def _audit(self, prompt_ids: list[int], ids: list[int], start: int) -> None:
        if start < len(prompt_ids):
            here = max(0, start - 5)
            self._report("not_prefix", f"{self._show(prompt_ids[here:])} against {self._show(ids[here : start + 8])}")
        bos = self.tokenizer.bos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            self._report("double_bos", self._show(ids[:8]))
        tail = [i for i in ids[max(start, len(ids) - 8) :] if not self._is_blank(i)]
        if not tail or tail[-1] not in self.ends:
            self._report("no_end_of_turn", self._show(ids[-8:]))
        elif len(tail) > 1 and tail[-2] in self.ends:
            self._report("double_end_of_turn", self._show(ids[-8:]))
        elif tail[-1] not in self.stop_ids:
            self.unstoppable[tail[-1]] += 1

    def _report(self, kind: str, example: str) -> None:
        if self.on_problem == "error":
            raise UserError(
                EXPLANATIONS[kind],
                f"Tokens: {example}",
                "Correct the student's chat template, or accept it with template_check: warn.",
            )
        self.problems[kind] += 1
        self.examples.setdefault(kind, example)

    def _is_blank(self, token: int) -> bool:
        if token not in self._blank:
            self._blank[token] = token not in self.ends and not self.tokenizer.decode([token]).strip()
        return self._blank[token]

    def _show(self, ids: list[int]) -> str:
        return " ".join(repr(self.tokenizer.decode([i])) for i in ids)


def _common_prefix(first: list[int], second: list[int]) -> int:
    if first == second[: len(first)]:
        return len(first)
    return next(i for i, (a, b) in enumerate(zip([*first, None], [*second, None], strict=False)) if a != b)
