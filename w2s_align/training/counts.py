"""How many rows a training was given, and what became of each."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class RowCounts:
    """Rows of a training; ``rows`` = ``kept`` + all ``dropped``, where pairs are not taken apart.

    Attributes:
        rows: Rows in the data.
        kept: Rows that are trained on or held out; each response of a pair that is taken apart is one.
        dropped: Rows left out, by reason: ``incomplete``, ``chosen_too_long``, ...
        cut: Responses that lost their end to ``max_length``, by side.
        identical: Kept pairs whose two responses are equal; where pairs are taken apart, good responses that equal a
            bad one under the same prompt.
        kept_by_set: Rows kept of each set of data, where there are several.
        shared_prompts: Rows whose prompt an earlier set of data has too.
        held_out: Kept rows that are measured and not trained on.
        repeated: Rows that come twice in an epoch, to fill up its last batch.
        by_class: Kept items by their most probable class, where items have classes.
    """

    rows: int
    kept: int
    dropped: dict[str, int] = field(default_factory=dict)
    cut: dict[str, int] = field(default_factory=dict)
    identical: int = 0
    kept_by_set: list[int] = field(default_factory=list)
    shared_prompts: int = 0
    held_out: int = 0
    repeated: int = 0
    by_class: dict[str, int] = field(default_factory=dict)

    def in_words(self) -> dict[str, int]:
        """Return the counts under names for people; of the rarer ones, those that are not 0."""
        rare = {
            **{f"dropped ({reason.replace('_', ' ')})": count for reason, count in self.dropped.items()},
            **{f"cut ({side})": count for side, count in self.cut.items()},
            "with two equal responses": self.identical,
            **{f"kept of set {number}": count for number, count in enumerate(self.kept_by_set, start=1)},
            "with a prompt of an earlier set": self.shared_prompts,
            "held out": self.held_out,
            "repeated": self.repeated,
            **{f"of class {name}": count for name, count in self.by_class.items()},
        }
        return {"rows": self.rows, "kept": self.kept, **{name: count for name, count in rare.items() if count}}
