"""The catalogue: every step kind by its name. A new kind is a file beside this one, and a line here.

Kinds of training declare themselves in training/methods; one file (train.py) makes the steps of all of them.
"""

from w2s_align.steps.best_of import BestOf
from w2s_align.steps.combine import Combine
from w2s_align.steps.cut import Cut
from w2s_align.steps.debate import DebateStep
from w2s_align.steps.decompose import Decompose
from w2s_align.steps.diagnose import Diagnose
from w2s_align.steps.ensemble import Ensemble
from w2s_align.steps.evaluate import Evaluate
from w2s_align.steps.evaluate_classifiers import EvaluateClassifiers
from w2s_align.steps.evaluate_pairs import EvaluatePairs
from w2s_align.steps.export import Export
from w2s_align.steps.export_model import ExportModel
from w2s_align.steps.generate import Generate
from w2s_align.steps.gold_answers import GoldAnswers
from w2s_align.steps.half import Half
from w2s_align.steps.half_pairs import HalfPairs
from w2s_align.steps.import_chats import ImportChats
from w2s_align.steps.import_model import ImportModel
from w2s_align.steps.import_pairs import ImportPairs
from w2s_align.steps.items import Items
from w2s_align.steps.join import Join
from w2s_align.steps.judge import JudgeStep
from w2s_align.steps.lab_model import LabModelStep
from w2s_align.steps.label import Label
from w2s_align.steps.label_errors import LabelErrorsStep
from w2s_align.steps.label_pairs import LabelPairs
from w2s_align.steps.likelihood import Likelihood
from w2s_align.steps.lm_eval import LmEvalStep
from w2s_align.steps.meta_ranking import MetaRanking
from w2s_align.steps.pair import PairStep
from w2s_align.steps.pick import Pick
from w2s_align.steps.preference import Preference
from w2s_align.steps.prompts import Prompts
from w2s_align.steps.report import ReportStep
from w2s_align.steps.score import ScoreStep
from w2s_align.steps.score_pairs import ScorePairs
from w2s_align.steps.select import Select
from w2s_align.steps.shuffle_errors import ShuffleErrors
from w2s_align.steps.stand_in_model import StandInModel
from w2s_align.steps.step import Step
from w2s_align.steps.step_errors import StepErrorsStep
from w2s_align.steps.task import TaskStep
from w2s_align.steps.theory import DeltaTheory, SectionsToy, W2SGOracle
from w2s_align.steps.train import training_steps

CATALOGUE: dict[str, type[Step]] = {
    step.model_fields["kind"].default: step
    for step in list[type[Step]](
        [
            Prompts,
            Items,
            Half,
            Pick,
            TaskStep,
            Generate,
            GoldAnswers,
            Cut,
            ScoreStep,
            JudgeStep,
            Label,
            Ensemble,
            ShuffleErrors,
            MetaRanking,
            Combine,
            BestOf,
            Select,
            StepErrorsStep,
            DebateStep,
            Decompose,
            PairStep,
            LabelErrorsStep,
            ImportPairs,
            HalfPairs,
            ScorePairs,
            LabelPairs,
            Join,
            ImportChats,
            Export,
            *training_steps(),
            Likelihood,
            Diagnose,
            Preference,
            LmEvalStep,
            Evaluate,
            EvaluateClassifiers,
            EvaluatePairs,
            ReportStep,
            ImportModel,
            ExportModel,
            LabModelStep,
            StandInModel,
            DeltaTheory,
            SectionsToy,
            W2SGOracle,
        ]
    )
}
"""Every step kind, by the name that a recipe uses."""
