"""The catalogue: what a recipe can do. One file for each kind: its configuration, what it reads and writes, run().

Importing it imports no torch: the domain packages are imported when a step runs.
"""

from w2s_align.steps.cut import Cut
from w2s_align.steps.dpo import Dpo
from w2s_align.steps.evaluate import Evaluate
from w2s_align.steps.generate import Generate
from w2s_align.steps.import_model import ImportModel
from w2s_align.steps.lab_model import LabModelStep
from w2s_align.steps.pair import PairStep
from w2s_align.steps.prompts import Prompts
from w2s_align.steps.report import ReportStep
from w2s_align.steps.score import ScoreStep
from w2s_align.steps.sft import Sft
from w2s_align.steps.step import Step

CATALOGUE: dict[str, type[Step]] = {
    step.model_fields["kind"].default: step
    for step in (
        Prompts,
        Generate,
        Cut,
        ScoreStep,
        PairStep,
        Sft,
        Dpo,
        Evaluate,
        ReportStep,
        ImportModel,
        LabModelStep,
    )
}
"""Every kind of step, by the name that a recipe uses."""

__all__ = ["CATALOGUE", "Step"]
