"""What a model thinks before it answers: told apart from the answer, kept, dropped, or put into a column of its own.

Takes an answer as the model wrote it; returns the columns ``text`` and ``reasoning`` of its record.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeAlias

Thinking: TypeAlias = Literal["keep", "strip", "separate"]
Thought: TypeAlias = Literal["whole", "cut_off"]


class Parts(NamedTuple):
    """An answer as it is recorded.

    Attributes:
        text: The answer; with ``keep`` the thought and its tags too. Empty when a thought that is not kept has no end.
        reasoning: The thought, with ``separate``; None when there is none.
        thought: Whether there is a thought, and whether it has an end. None without one.
    """

    text: str
    reasoning: str | None
    thought: Thought | None


@dataclass(frozen=True)
class Splitter:
    """How the answers of a job are taken apart.

    Attributes:
        thinking: What becomes of the thought.
        tags: What stands before and after a thought.
        opening: Beginning of every answer that stands in the prompt already: an opening tag that the template writes,
            a prefill. It belongs to what the model says, so it is put back.
    """

    thinking: Thinking = "keep"
    tags: tuple[str, str] = ("<think>", "</think>")
    opening: str = ""

    def split(self, written: str) -> Parts:
        """Take one answer apart.

        A thought stands at the beginning: from the opening tag (or the very beginning, where a server has left that
        tag in the prompt) to the first closing tag. Without a closing tag all of it is thought. As the templates of
        reasoning models do when they render it again, line breaks around thought and answer are left out.

        Args:
            written: What the model wrote after its prompt.
        """
        opened, closed = self.tags
        whole = self.opening + written
        before, end, after = whole.partition(closed)
        begins = before.lstrip().startswith(opened)
        if not end and not begins:
            return Parts(whole, None, None)
        thought: Thought = "whole" if end else "cut_off"
        if self.thinking == "keep":
            return Parts(whole, None, thought)
        reasoning = (before.lstrip().removeprefix(opened) if begins else before).strip("\n")
        return Parts(after.lstrip("\n"), reasoning if self.thinking == "separate" else None, thought)

    def rejoin(self, reasoning: str, text: str) -> Parts:
        """Treat a thought that a server has separated already as the option says.

        Args:
            reasoning: The thought, without tags.
            text: The answer.
        """
        opened, closed = self.tags
        if self.thinking == "keep":
            return Parts(f"{opened}\n{reasoning}\n{closed}\n\n{text}", None, "whole")
        return Parts(text, reasoning if self.thinking == "separate" else None, "whole")
