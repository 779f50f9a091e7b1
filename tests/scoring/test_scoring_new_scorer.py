"""Adding a scorer takes one file and its line in the table: tried on a copy of the package."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import w2s_align

SCORER = '''
from contextlib import contextmanager
from typing import ClassVar, Literal

from w2s_align.scoring.scorer import Assessment, Scorer, unscored


class ShoutScorer(Scorer):
    """How loud a response is."""

    name: Literal["shout"] = "shout"
    model: str = "$judge"
    revision: str | None = None
    models: ClassVar[dict[str, str]] = {"model": "revision"}

    @property
    def label(self) -> str:
        return f"shout:{self.model}"

    @contextmanager
    def open(self):
        def check(text):
            return Assessment(float(text.count("!")), answer=text) if text else unscored("nothing said")

        yield lambda prompts, responses: [check(text) for text in responses["text"].to_pylist()]
'''
USE = """
from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring import score, scorer_settings
from w2s_align.steps.evaluate import Evaluate
from w2s_align.steps.score import ScoreStep

prompt = Prompt.of("q")
rows = to_table([Response(prompt.id, 0, "m", "a!!"), Response(prompt.id, 1, "m", "")])
found = score(to_table([prompt]), rows, "shout")
assert found.table["value"].to_pylist() == [2.0, None], found
assert found.table["answer"].to_pylist() == ["a!!", None]
assert found.table["scorer"][0].as_py() == "shout:$judge"
assert found.unscored == {"nothing said": 1}
step = ScoreStep.model_validate({"responses": "$r", "scorer": {"name": "shout", "model": "$j"}})
asked = list(step.references())[1]
assert (asked.path, asked.value) == (("scorer", "model"), "$j")
assert step.claims().gpus == 1
assert "shout" in str(Evaluate.model_json_schema())
"""


def test_a_scorer_is_one_file_and_a_line_of_the_table(tmp_path: Path) -> None:
    package = tmp_path / "w2s_align"
    shutil.copytree(Path(w2s_align.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    scorers = package / "scoring" / "scorers"
    (scorers / "shout.py").write_text(SCORER)
    table = scorers / "__init__.py"
    text = table.read_text()
    listed = "        LogprobScorer,\n"
    assert text.count(listed) == 1
    text = text.replace(listed, f"{listed}        ShoutScorer,\n")
    table.write_text(
        text.replace("\nSCORERS:", "\nfrom w2s_align.scoring.scorers.shout import ShoutScorer\n\nSCORERS:", 1)
    )
    done = subprocess.run(
        [sys.executable, "-c", USE],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
