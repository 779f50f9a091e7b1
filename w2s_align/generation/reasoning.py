"""Split the reasoning that a model writes before its final text: keep it, strip it, or put it into its own column.

Takes a response as the model wrote it; returns the columns ``text`` and ``reasoning`` of its record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Thinking: TypeAlias = Literal["keep", "strip", "separate"]
ReasoningState: TypeAlias = Literal["whole", "cut_off"]


class Split(NamedTuple):
    """A response as it is recorded.

    Attributes:
        text: The final text; with ``keep`` the reasoning and its tags too. Empty when reasoning that is not kept has
            no closing tag.
        reasoning: The reasoning, with ``separate``; None when there is none.
        state: Whether there is reasoning, and whether it has an end. None without any.
    """

    text: str
    reasoning: str | None
    state: ReasoningState | None


@dataclass(frozen=True)
class Splitter:
    """How the responses of a job are split.

    Attributes:
        thinking: What happens to the reasoning.
        tags: Opening and closing tag of the reasoning.
        opening: Start of every response that is already in the prompt: an opening tag that the template writes, a
            prefill. It belongs to the response, so it is put back.
    """

    thinking: Thinking = "keep"
    tags: tuple[str, str] = ("<think>", "</think>")
    opening: str = ""

    def split(self, written: str) -> Split:
        """Split one response.

        Reasoning is at the beginning: from the opening tag (or the very beginning, where a server has left that
        tag in the prompt) to the first closing tag. Without a closing tag all of it is reasoning. Line breaks around
        reasoning and final text are left out, as the templates of reasoning models do when they render it again.

        Args:
            written: What the model wrote after its prompt.
        """
        opened, closed = self.tags
        whole = self.opening + written
        before, end, after = whole.partition(closed)
        begins = before.lstrip().startswith(opened)
        if not end and not begins:
            return Split(whole, None, None)
        state: ReasoningState = "whole" if end else "cut_off"
        if self.thinking == "keep":
            return Split(whole, None, state)
        reasoning = (before.lstrip().removeprefix(opened) if begins else before).strip("\n")
        return Split(after.lstrip("\n"), reasoning if self.thinking == "separate" else None, state)

    def rejoin(self, reasoning: str, text: str) -> Split:
        """Apply the option to reasoning that a server has already separated.

        Args:
            reasoning: The reasoning, without tags.
            text: The final text.
        """
        opened, closed = self.tags
        if self.thinking == "keep":
            return Split(f"{opened}\n{reasoning}\n{closed}\n\n{text}", None, "whole")
        return Split(text, reasoning if self.thinking == "separate" else None, "whole")
