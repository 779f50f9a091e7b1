"""Every scorer. To add one: write its class in a file here, and put it into ``SCORERS`` below.

Importing this package imports no model library: recipes are checked against these classes before anything runs.
"""

from functools import reduce
from operator import or_
from typing import TYPE_CHECKING, Annotated, TypeAlias

from pydantic import Field, TypeAdapter, ValidationError

from w2s_align.errors import UserError
from w2s_align.scoring.scorer import Scorer
from w2s_align.scoring.scorers.accepted_answers import ContainsScorer, F1Scorer
from w2s_align.scoring.scorers.answer_checks import ChoiceScorer, ExactScorer, NumericScorer
from w2s_align.scoring.scorers.auto import AutoScorer
from w2s_align.scoring.scorers.class_probability import ClassProbabilityScorer
from w2s_align.scoring.scorers.code import CodeScorer
from w2s_align.scoring.scorers.feature import FeatureScorer
from w2s_align.scoring.scorers.instructions import InstructionsScorer
from w2s_align.scoring.scorers.lab import LabScorer
from w2s_align.scoring.scorers.lab_verifier import LabVerifierScorer
from w2s_align.scoring.scorers.library_checks import FirstBoxScorer, MathScorer, ReasoningGymScorer
from w2s_align.scoring.scorers.logprob import LogprobScorer
from w2s_align.scoring.scorers.reward import RewardScorer
from w2s_align.scoring.scorers.self_consistency import SelfConsistencyScorer

SCORERS: dict[str, type[Scorer]] = {
    scorer.model_fields["name"].default: scorer
    for scorer in (
        ExactScorer,
        NumericScorer,
        ChoiceScorer,
        MathScorer,
        FirstBoxScorer,
        ReasoningGymScorer,
        LabScorer,
        LabVerifierScorer,
        AutoScorer,
        CodeScorer,
        InstructionsScorer,
        F1Scorer,
        ContainsScorer,
        FeatureScorer,
        SelfConsistencyScorer,
        RewardScorer,
        ClassProbabilityScorer,
        LogprobScorer,
    )
}
"""Every scorer, by the name that a recipe uses."""

if TYPE_CHECKING:
    ScorerSettings: TypeAlias = Scorer
else:
    # The union is made of the table, so that a scorer is named in it once; type checkers see the base class.
    ScorerSettings = Annotated[reduce(or_, SCORERS.values()), Field(discriminator="name")]
"""Any one scorer with its options, told apart by ``name``."""


def scorer_settings(scorer: str | Scorer) -> Scorer:
    """Return a scorer, given its name (``math``, ``feature:sentences``) or the scorer itself.

    Raises:
        UserError: There is no scorer of that name, or it needs options.
    """
    if isinstance(scorer, Scorer):
        return scorer
    name, _, feature = scorer.partition(":")
    if name not in SCORERS:
        raise UserError(f"There is no scorer {scorer!r}.", fix=f"Use one of: {', '.join(SCORERS)}.")
    options = {"name": name, "feature": feature} if feature else {"name": name}
    try:
        found: Scorer = TypeAdapter(ScorerSettings).validate_python(options)
    except ValidationError as error:
        problem = error.errors()[0]
        what = ".".join(str(part) for part in problem["loc"][1:])
        raise UserError(
            f"The scorer {scorer!r} cannot be used by its name alone: {what}: {problem['msg']}."
        ) from error
    return found


__all__ = ["SCORERS", "ScorerSettings", "scorer_settings"]
