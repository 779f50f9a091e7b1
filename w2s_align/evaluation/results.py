"""What an evaluation found, as plain values that turn into JSON and back.

    results.model_dump(mode="json")          Results.model_validate(json.loads(text))

Written by evaluate_arms, read by verdict and by everything in reporting. Values of a score that is always between 0
and 1 are shares (0.17, not 17%); ``unit`` says whether a score is one. Nothing is NaN: what cannot be said is null.
"""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict

Role = Literal["teacher", "student", "treatment", "control", "ceiling", "other"]
"""Part of an arm in the experiment. ``student`` is the untouched one; ``treatment`` is the student after tuning."""

ROLES: tuple[Role, ...] = ("teacher", "student", "control", "other", "treatment", "ceiling")
"""The order in which arms are shown: what the student learns from, where it starts and ends, what is possible."""


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True)


class Estimate(_Plain):
    """A mean over problems with its interval."""

    value: float | None
    """Mean over problems; null when nothing could be scored."""
    low: float | None
    """Lower end of the interval."""
    high: float | None
    """Upper end of the interval."""
    method: str
    """How the interval was made, or why there is none."""


class SeedResult(_Plain):
    """One run (training seed) of an arm, in one setting."""

    seed: str
    """Name of the run, usually its training seed."""
    estimate: Estimate
    """Interval over problems, for this run alone."""


class SettingResult(_Plain):
    """One arm in one sampling setting."""

    setting: str
    """``greedy``, ``sampled``, or any other name."""
    estimate: Estimate
    """Over problems and, where there are several runs, over training seeds; see ``seeds.py``. A problem's value is the
    mean over its answers, then over the runs."""
    seeds: list[SeedResult]
    """The same for every run alone."""
    seed_spread: float | None
    """Standard deviation between the runs' means; null for a single run."""
    problems: int
    """Problems with a scored answer in every run."""
    problems_without_score: int
    """Problems left out because some run has no scored answer."""
    answers: int
    """Answers in all runs."""
    samples_per_problem: float
    """Answers per problem and run."""
    unscored: int
    """Answers that could not be scored; left out, never counted as wrong. ``possible`` says what they could change."""
    unscored_reasons: dict[str, int]
    """How many by reason, the most frequent first."""
    possible: tuple[float, float] | None = None
    """Mean if every unscored answer were worth 0, and if every one were worth 1; null where all are scored, or where
    scores are no shares."""
    truncated_share: float | None
    """Share of answers that were cut at the token limit."""
    no_answer_share: float | None
    """Share of scored answers in which no result was found (they count as wrong)."""
    mean_tokens: float | None
    """Mean length of an answer in the model's tokens."""
    pass_at: dict[str, float]
    """Unbiased pass@k by k, mean over problems and runs; empty for greedy answers and scores that are not 0 or 1."""
    selections: list[Selection] = []
    """What comes of choosing one of several answers: by majority, by any scorer; empty for single answers."""


class Selection(_Plain):
    """One answer chosen out of several."""

    by: str
    """``majority``, or the name of the scorer that chooses."""
    estimate: Estimate
    """Mean score of the chosen answers."""
    gap: Estimate
    """Some answer is right, minus the chosen one is right: the generation-verification gap."""
    calibration_error: float | None = None
    """Of the majority's share of the votes as a confidence; null for other choosers."""


class ArmResult(_Plain):
    """One arm in all settings."""

    name: str
    """Name in the recipe."""
    role: Role
    """Part in the experiment."""
    settings: dict[str, SettingResult]
    """By name of the setting."""


class SeedComparison(_Plain):
    """A comparison for one run of the first arm alone."""

    seed: str
    """Name of the run."""
    value: float | None
    """Mean difference over problems."""
    p: float | None
    """Two-sided p-value, not adjusted."""


class WorstCase(_Plain):
    """A comparison in which every answer that could not be scored counts against what was found."""

    difference: Estimate
    """Mean difference with its interval."""
    p: float | None
    """Two-sided p-value of "no difference"."""
    p_holm: float | None = None
    """Adjusted like the comparison's own."""


class Comparison(_Plain):
    """First arm minus second arm on the same problems, in one setting."""

    setting: str
    """The sampling setting."""
    first: str
    """The arm that is judged."""
    second: str
    """The arm it is compared with."""
    kind: Literal["baseline", "teacher", "control"]
    """What the second arm is to the first."""
    difference: Estimate
    """Mean difference with its paired interval."""
    p: float | None
    """Two-sided p-value of "no difference"."""
    p_holm: float | None
    """Holm-adjusted over all comparisons of the setting."""
    test: str
    """How the p-value was made."""
    mde: float | None
    """Smallest true difference that this comparison finds in 80 of 100 studies."""
    problems: int
    """Problems that both arms have."""
    better: int
    """Problems where the first arm is better."""
    worse: int
    """Problems where it is worse."""
    seeds: list[SeedComparison]
    """Every run of the first arm alone, against the mean of the second arm's runs."""
    worst_case: WorstCase | None = None
    """Where answers of either arm could not be scored."""


class DeltaGain(_Plain):
    """What the delta gave: a tuned student minus the best of its teachers."""

    setting: str
    """The sampling setting."""
    arm: str
    """The tuned student."""
    teacher: str
    """The teacher with the highest observed mean."""
    difference: Estimate
    """Its interval is that of the comparison with this teacher."""


class GapRecovered(_Plain):
    """How much of a gap an arm closes: 0 is its lower end, 1 its upper one; below 0 and above 1 can be."""

    setting: str
    """The sampling setting."""
    measure: Literal["PGR", "RGR"]
    """PGR: from the best teacher to the ceiling. RGR: from the untouched student to the ceiling."""
    arm: str
    """The arm that is judged."""
    lower: str
    """Arm at 0."""
    upper: str
    """Arm at 1."""
    estimate: Estimate
    """Null with the reason in ``method`` where the gap's interval touches 0. With several tasks of their plain means,
    the numbers that stand beside it."""
    tasks: dict[str, Estimate] = {}
    """Of each task by itself, where there are several."""
    median: float | None = None
    """Median over the tasks where it is defined, as Burns et al. report; null for fewer than two of them. Leaving out
    the others biases it upward."""


class WinRate(_Plain):
    """One arm against the reference of a judged task, raw and controlled for length; see ``length_control``."""

    setting: str
    """The sampling setting."""
    task: str
    """The task."""
    arm: str
    """The arm."""
    controlled: Estimate
    """What the judge would prefer if both answers were equally long."""
    published: Estimate | None = None
    """By the published fit of AlpacaEval 2, where its data were given; see ``published_length_control``."""
    raw: Estimate
    """What it preferred: a tie is one half, and so is a flip."""
    length_effect: float
    """phi, the change of the log-odds of a win by length; mean over runs."""
    outcomes: dict[str, int]
    """Answers of all runs by outcome: ``win``, ``loss``, ``tie``, ``half tie`` (in one order only), ``flip`` (the two
    orders contradict each other), ``unscored``."""


class Agreement(_Plain):
    """How often an arm gives its best teacher's answer; mean over its runs."""

    setting: str
    """The sampling setting."""
    arm: str
    """The arm."""
    teacher: str
    """The teacher with the highest observed mean."""
    overall: float | None
    """Share of all problems."""
    teacher_right: float | None
    """Share of the problems that the teacher solves."""
    teacher_wrong: float | None
    """Share of those that it does not: high where its mistakes are imitated."""


class ClassifierResult(_Plain):
    """What stands beside a classifier's accuracy; means over its runs."""

    arm: str
    """The arm."""
    balanced_accuracy: Estimate
    """Mean over the classes of the share of their items that are right."""
    f1: Estimate
    """Of the second class; null for more than two."""
    auroc: Estimate
    """How often an item of the second class has the higher probability of it; ties count one half."""
    calibration_error: float | None
    """Of the probability of the given class as a confidence, over 15 bins."""
    confidence: float | None
    """Mean of that probability."""
    classes: dict[str, float]
    """Share of the items that are given each class."""


class PartArm(_Plain):
    """One arm on a part of the problems."""

    estimate: Estimate
    """Mean over the part's problems."""
    unscored: int
    """Answers that could not be scored."""
    truncated_share: float | None
    """Share of answers that were cut at the token limit."""
    no_answer_share: float | None
    """Share of scored answers without a result."""
    mean_tokens: float | None
    """Mean length of an answer in tokens."""
    difference: Estimate | None = None
    """Against the untouched student on the same problems; null for itself."""
    p: float | None = None
    """Two-sided p-value of "no difference"."""
    p_holm: float | None = None
    """Holm-adjusted over the parts."""
    mde: float | None = None
    """Smallest true difference that would be found in 80 of 100 studies."""


class Part(_Plain):
    """A part of the problems: a task, a subject, a difficulty."""

    name: str
    """Its name."""
    problems: int
    """Problems in it."""
    arms: dict[str, PartArm]
    """By name of the arm."""


class Breakdown(_Plain):
    """The same comparison on the parts of the problems."""

    by: Literal["task", "subject", "difficulty"]
    """What the parts are."""
    setting: str
    """The sampling setting."""
    parts: list[Part]
    """In the order of the problems."""


class ShareResult(_Plain):
    """A share with its counts."""

    part: int
    """Cases that count."""
    whole: int
    """Cases of which they are a part."""
    value: float | None
    """The share; null of no cases."""
    low: float | None
    """Lower end of its Wilson interval."""
    high: float | None
    """Upper end."""


class RegionResult(_Plain):
    """A part of the test cases, by what the strong and the weak model know."""

    name: str
    """Who knows them."""
    tax: ShareResult
    """The tax among its cases."""


class ConflictResult(_Plain):
    """What a conflict costs one run of an arm, and where (see ``conflict_tax.py``)."""

    arm: str
    """The arm with the conflict."""
    seed: str
    """Its run."""
    reading: Literal["no_conflict", "ceiling"]
    """What a case is compared with: the run without conflict (reading A), or the ceiling (reading B)."""
    against: str
    """The arm that it is compared with, with its run."""
    tax: ShareResult
    """The tax among all cases."""
    score: ShareResult
    """Deception score: the blind region's part of the tax."""
    expected: ShareResult
    """The blind region's part of all cases: the score of a tax that is spread evenly."""
    regions: list[RegionResult]
    """The tax by region."""
    threshold: float
    """Confidence from which a model counts as knowing a case."""
    unscored: int
    """Cases left out, because a model has no score of them."""


class Results(_Plain):
    """Everything that an evaluation of arms found."""

    format: Literal[1] = 1
    """Version of this layout."""
    study: Literal["training", "choice", "pairs"] = "training"
    """training: arms are models. choice: they are ways to choose one of the same responses (see ``choice.py``). pairs:
    they are models that order pairs of responses (see ``pair_order.py``)."""
    metric: str
    """Name of the scorer."""
    unit: Literal["share", "number"]
    """``share``: between 0 and 1, shown as percent."""
    baseline: str
    """The arm that the others are compared with: where arms have roles, the untouched student or the teacher."""
    problems: int
    """Problems given."""
    level: float
    """Confidence level of all intervals."""
    settings: list[str]
    """The first is the one that the verdict is about."""
    arms: list[ArmResult]
    """In the order in which they are shown."""
    comparisons: list[Comparison]
    """Every arm against the baseline, every treatment against each teacher and each control."""
    delta_gains: list[DeltaGain]
    """One per treatment and setting, where there are teachers."""
    warnings: list[str]
    """What a reader must know before believing the numbers."""
    tasks: list[str] = []
    """Tasks, where there are several: then every mean is the plain mean over tasks."""
    by_subject: list[str] = []
    """Tasks whose number is the plain mean over their subjects, not over their problems."""
    task_settings: dict[str, list[str]] = {}
    """By task: the published setting that it follows, what differs from it, and what this evaluation has changed."""
    breakdowns: list[Breakdown] = []
    """By task, subject and difficulty, where the problems say them."""
    gaps: list[GapRecovered] = []
    """PGR and RGR, where there is a ceiling."""
    win_rates: list[WinRate] = []
    """Of tasks that a judge compares with a reference."""
    agreements: list[Agreement] = []
    """Of students with their best teacher, where answers can be compared."""
    classifiers: list[ClassifierResult] = []
    """Of classifiers."""
    conflicts: list[ConflictResult] = []
    """Of models that order pairs, where one of them was trained without a conflict."""

    @property
    def only_compares(self) -> bool:
        """Whether models are compared and none is a tuned student."""
        return all(arm.role == "other" for arm in self.arms)

    @property
    def reference(self) -> str:
        """What the baseline is called in a heading."""
        return "untouched" if self.arm(self.baseline).role == "student" else self.baseline

    @property
    def reference_in_words(self) -> str:
        """What the baseline is called in a sentence."""
        role = self.arm(self.baseline).role
        if role == "student":
            return "the untouched student"
        return f"its supervisor {self.baseline}" if role == "teacher" else self.baseline

    def arm(self, name: str) -> ArmResult:
        """Return an arm by name."""
        return next(arm for arm in self.arms if arm.name == name)

    def comparison(self, setting: str, first: str, second: str) -> Comparison | None:
        """Return one comparison, or None when it was not made."""
        wanted = (setting, first, second)
        return next((c for c in self.comparisons if (c.setting, c.first, c.second) == wanted), None)
