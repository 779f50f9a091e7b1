"""Options of examples in the prompt, and how a generation gets them: from the responses of a step, or from a file."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ConfigDict, Field, ValidationInfo, field_validator

from w2s_align.artifacts.identity import file_digest
from w2s_align.errors import UserError
from w2s_align.recipe.schema import Reads, Reference
from w2s_align.records import Settings
from w2s_align.steps.local_files import beside_the_recipe

if TYPE_CHECKING:
    from w2s_align.generation.examples import Examples
    from w2s_align.steps.work import Work

FROM = ("examples", "from")
"""Where the step behind the examples stands in the options of a generation."""
_WORDS = re.compile(r"[\w ]+:?")


class ExampleOptions(Settings):
    """Examples that stand before every prompt, as earlier turns of the chat."""

    model_config = ConfigDict(serialize_by_alias=True)

    source: str | None = Field(None, alias="from")
    """A step that writes responses, as $step: its complete responses are drawn, wrong ones too."""
    file: str | None = None
    """Rows with prompt and response, the first n of them; instead of from."""
    n: int = Field(4, ge=1)
    """How many."""
    seed: int = Field(0, ge=0)
    """Seed of the draw: several seeds give several sets of examples."""

    @field_validator("file")
    @classmethod
    def _beside_the_recipe(cls, file: str | None, info: ValidationInfo) -> str | None:
        return None if file is None else beside_the_recipe(file, info)

    def check(self, stop: list[str]) -> None:
        """Refuse examples from nowhere or from two places, and stop texts that end a solution at a word inside it.

        Args:
            stop: Texts that end a response.

        Raises:
            UserError: See above.
        """
        if (self.source is None) == (self.file is None):
            raise UserError("Examples come from a step or from a file.", fix="examples: {from: $weak_answers, n: 4}")
        if self.file is not None and not Path(self.file).expanduser().is_file():
            raise UserError(f"The file {self.file} does not exist.", fix="Paths are relative to the recipe's folder.")
        for text in stop:
            if _WORDS.fullmatch(text):
                raise UserError(
                    f"The stop text {text!r} would cut every solution that has the word in it.",
                    why="With examples in the prompt a model may go on with the next question; that begins a line.",
                    fix=f"Write it with the line break before it: {json.dumps(chr(10) + text)}",
                )

    def references(self) -> list[Reference]:
        """Return the step that the examples come from, if it is one."""
        return [] if self.source is None else [Reference(FROM, self.source, Reads(("responses",)))]

    def identity(self) -> dict[str, Any]:
        """Return the digest of the file."""
        return {} if self.file is None else {"examples": file_digest(Path(self.file).expanduser())}

    def load(self, work: Work) -> Examples:
        """Return the examples.

        Raises:
            UserError: There are too few, they are of other problems than the prompts, or a row has none.
        """
        from w2s_align.generation.examples import Examples, draw_examples

        if self.file is not None:
            return Examples(_rows(Path(self.file).expanduser(), self.n))
        place = ".".join(FROM)
        source, asked = work.inputs[place], work.inputs["prompts"]
        behind = source.prompts().table()
        theirs, own = (set(table["task"].to_pylist()) for table in (behind, asked.table()))
        if not theirs & own:
            raise UserError(
                f"The examples of ${work.sources[place]} are about other problems than the prompts.",
                why=f"They answer {', '.join(sorted(theirs))}; the prompts are of {', '.join(sorted(own))}.",
                fix="Take examples from a step that answers prompts of the same task.",
            )
        return draw_examples(behind, source.table(), self.n, self.seed)


def _rows(path: Path, n: int) -> list[Any]:
    from w2s_align.generation.examples import Example
    from w2s_align.interchange.readers import Broken, numbered_rows

    found: list[Example] = []
    for place, row in numbered_rows(path):
        texts = None if isinstance(row, Broken) else [row.get("prompt"), row.get("response")]
        if texts is None or not all(isinstance(text, str) and text.strip() for text in texts):
            raise UserError(
                f"{path.name}, {place}: no example.", fix='Each row needs two texts: {"prompt": ..., "response": ...}'
            )
        found.append(Example([{"role": "user", "content": str(texts[0])}], str(texts[1])))
        if len(found) == n:
            return found
    raise UserError(
        f"{path.name} has {len(found)} examples, not {n}.", fix=f"Set examples.n to {len(found)}, or add some."
    )
