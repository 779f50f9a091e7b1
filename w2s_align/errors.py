"""Errors that are meant for people.

A mistake of the user (a typo, a missing file, a model that does not exist) is raised as :class:`UserError` and shown
as one panel with exit code 2 and no traceback. Everything else that is raised is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass

LONGEST = 500
"""Characters of what was given, or of its place, that a message repeats."""


@dataclass(frozen=True)
class Problem:
    """One thing that cannot work, in words.

    Attributes:
        what: What was given, e.g. ``student.learning_rte is not an option of dpo``.
        why: Why it cannot work; empty when ``what`` says it all.
        fix: What to write or do instead.
        where: File and line, e.g. ``recipe.yaml:14``; empty when there is none.
    """

    what: str
    why: str = ""
    fix: str = ""
    where: str = ""

    def __post_init__(self) -> None:
        # Whatever was given may be in it: a text of megabytes, an address with a key.
        object.__setattr__(self, "what", shortened(without_secrets(self.what), LONGEST, quoted=False))
        object.__setattr__(self, "where", shortened(without_secrets(self.where), LONGEST, quoted=False))

    def __str__(self) -> str:
        sentence = "  ".join(part for part in (self.where, self.what, self.why, self.fix) if part)
        return sentence


def shortened(value: object, most: int = 80, *, quoted: bool = True) -> str:
    """Return a value as it is shown in a message, with its middle left out when it is long.

    Args:
        value: What was given.
        most: Characters to show.
        quoted: Whether to show it as Python would write it.
    """
    text = repr(value) if quoted else str(value)
    return text if len(text) <= most else f"{text[: most // 2]} ... {text[-(most // 4) :]}"


_SECRET_PART = re.compile(r"(?<=://)[^/@\s]*@|(?<=://)(\S*?)[?#][^\s)'\"]*")


def without_secrets(text: str) -> str:
    """Return a text whose addresses have no user, no password and no query: a key may stand there."""
    return _SECRET_PART.sub(lambda m: "...@" if m[0].endswith("@") else f"{m[1]}?...", text) if "://" in text else text


class UserError(Exception):
    """One or more problems that the user can solve.

    Args:
        what: See :class:`Problem`.
        why: See :class:`Problem`.
        fix: See :class:`Problem`.
        where: See :class:`Problem`.
    """

    def __init__(self, what: str, why: str = "", fix: str = "", where: str = "") -> None:
        self.problems: list[Problem] = [Problem(what, why, fix, where)]
        super().__init__(str(self.problems[0]))

    @classmethod
    def all(cls, problems: Sequence[Problem]) -> UserError:
        """Make one error of several problems, so that a user sees all of them at once.

        Raises:
            ValueError: ``problems`` is empty.
        """
        if not problems:
            raise ValueError("an error needs at least one problem")
        error = cls("")
        error.problems = list(problems)
        error.args = ("\n".join(str(problem) for problem in problems),)
        return error

    def to_json(self) -> list[dict[str, str]]:
        """Return the problems as plain values, to cross a process border."""
        return [asdict(problem) for problem in self.problems]

    @classmethod
    def from_json(cls, problems: Sequence[dict[str, str]]) -> UserError:
        """Rebuild an error from :meth:`to_json`."""
        return cls.all([Problem(**problem) for problem in problems])


def missing_package(package: str, extra: str, purpose: str) -> UserError:
    """Return the error for an optional package that is not installed.

    Args:
        package: Name of the distribution, e.g. ``vllm``.
        extra: The extra of ``w2s-align`` that brings it, e.g. ``cpu``.
        purpose: What needs it, e.g. ``the vllm engine``.
    """
    return UserError(
        f"{purpose} needs the package {package}, which is not installed.",
        fix=f"Install it with: pip install 'w2s-align[{extra}]'",
    )


def did_you_mean(given: str, known: Iterable[str], prefix: str = "") -> str:
    """Return ``Did you mean X?`` for the nearest known name, or the available names when none is near.

    Args:
        given: What the user wrote.
        known: What would have been right.
        prefix: Put before each name, e.g. ``$``.
    """
    names = sorted(known)
    near = difflib.get_close_matches(given, names, n=1, cutoff=0.6) or (names if len(names) == 1 else [])
    if near:
        return f"Did you mean {prefix}{near[0]}?"
    if not names:
        return ""
    return "Available: " + ", ".join(prefix + name for name in names) + "."
