"""evaluate: arms on the same problems or benchmarks, with intervals and paired tests against the untouched student.

Implies one `generate` step for each arm, training seed, sampling setting and task (`likelihood` and `lm_eval` for
tasks of these kinds; `preference` after it for judged ones), so that an answer is made once however many evaluations
ask for it. Reads those; writes
data/scores.parquet and results.json (evaluation.Results).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from w2s_align.artifacts.identity import file_digest
from w2s_align.errors import Problem, UserError, did_you_mean
from w2s_align.evaluation.lm_eval_names import check_lm_eval_task
from w2s_align.evaluation.results import Role
from w2s_align.evaluation.task import (
    LM_EVAL,
    Task,
    TaskChoice,
    TaskSampling,
    load_suite,
    load_task,
    setting_lines,
)
from w2s_align.families.fusion import Fusion
from w2s_align.generation.settings import Engine, Sampling
from w2s_align.recipe.schema import MODEL, NAME, ArtifactType, PromptsRef, Reads, Reference, Resources, StepConfig
from w2s_align.records import Score, record_columns
from w2s_align.scoring.scorers import ScorerSettings
from w2s_align.steps.arms import check_arms
from w2s_align.steps.evaluation_checks import Judging, check_judging, check_metrics
from w2s_align.steps.evaluation_inputs import Evaluated
from w2s_align.steps.evaluation_places import Place
from w2s_align.steps.generate import Generate, GenerateResources
from w2s_align.steps.gold import check_gold
from w2s_align.steps.likelihood import Likelihood
from w2s_align.steps.lm_eval import LmEvalStep
from w2s_align.steps.preference import Preference
from w2s_align.steps.score import NAMED_MODEL, open_scorer, scorer_identity, scorer_models
from w2s_align.steps.step import Step
from w2s_align.steps.tables import labeled
from w2s_align.steps.task import TaskStep, check_task
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.evaluation import Answers

STANDARD = "standard"
"""The setting of an evaluation that leaves decoding to its tasks."""


class Evaluate(Step):
    """Compare models on the same problems: accuracy with intervals, paired differences with p-values."""

    kind: Literal["evaluate"] = "evaluate"
    prompts: PromptsRef | None = None
    """Problems of your own, with gold answers."""
    tasks: list[str | TaskChoice] = []
    """Benchmarks: names (`gsm8k`, `lab/addition`, `reasoning_gym/chain_sum`, `lm_eval/arc_easy`), YAML files, or
    {name: gsm8k, shots: 8, limit: 200}."""
    suite: str | None = None
    """A named list of tasks, e.g. tulu3, reasoning_gym."""
    data_dir: str | None = None
    """Mirror folder with the hub's files: <data_dir>/<owner>/<dataset>/... Default: W2S_DATA_DIR, else the hub."""
    arms: dict[str, Annotated[str, Reads(("model",), literal=True, many=True)]]
    """Models by the name of their arm: a hub id, a folder, or $step (with all its seeds)."""
    baseline: str | None = None
    """The arm that the others are compared with: the untouched student. Default, without roles: the first arm."""
    roles: dict[str, Role] = {}
    """What each arm is: teacher, student, treatment, control, ceiling or other. Without roles, models are compared and
    nothing is concluded about a training."""
    sampling: dict[str, Sampling] = {}
    """Settings by name, e.g. {greedy: {temperature: 0, max_tokens: 512}, sampled: {temperature: 1, n: 4, ...}}.
    The verdict is about the first, or about `greedy` where there is one. Default with tasks: what each task says."""
    fusion: dict[str, Fusion] = {}
    """Arms whose logits are shifted by contrasts of other models while they write, without training:
    {fused: {contrasts: [{plus: $weak, minus: $weaker}]}}, with fused: $student among the arms."""
    scorer: str | ScorerSettings = "auto"
    """Answer check of `prompts`: its name, or {name: ..., options}. auto: the one that fits each prompt's task."""
    lower_is_better: bool = False
    """The scorer measures what is bad, e.g. toxicity: its values are compared as 1 - value, or as -value where they
    are no shares, and the name of the scorer says so."""
    best_of: list[str | ScorerSettings] = []
    """Scorers that choose one of several answers; the gap to "some answer is right" is reported beside it."""
    judge: Annotated[str, Reads(("model",), literal=True)] | None = None
    """The model that judges tasks like alpaca_eval: a hub id, a folder, $step, or a server's model name. Without one a
    suite leaves these tasks out, and says so."""
    judging: Judging = Judging()
    """How the judge is asked."""
    judge_resources: GenerateResources | None = None
    """What judging may use of the machine, and where a server of the judge is (base_url). Default: `resources`."""
    engine: Engine = Engine()
    """What else can change an answer; the same for all arms."""
    resources: GenerateResources = GenerateResources()
    """What generating each arm's answers may use of the machine."""

    writes: ClassVar[ArtifactType] = "results"
    version: ClassVar[int] = 5
    libraries: ClassVar[tuple[str, ...]] = ("math-verify", "reasoning-gym", "scipy")
    renamed: ClassVar[Mapping[str, str]] = {"models": "Name them in arms: {base: model, tuned: $step}."}

    def choices(self) -> dict[str, TaskChoice]:
        """Return the tasks with their settings, by name.

        Raises:
            UserError: A task stands there twice, or does not exist.
        """
        listed = [*self._of_suite(judged=self.judge is not None), *self.tasks]
        found = [TaskChoice(name=entry) if isinstance(entry, str) else entry for entry in listed]
        named = {load_task(choice).name: choice for choice in found}
        if len(named) < len(found):
            raise UserError("tasks: the same task stands there twice.", fix="Two settings of it need two evaluations.")
        return named

    def _of_suite(self, judged: bool) -> list[TaskChoice]:
        """Return the tasks of the suite, with or without those that need a judge."""
        listed = load_suite(self.suite) if self.suite else []
        return [choice for choice in listed if judged or load_task(choice).kind != "judged"]

    def _left_out(self) -> str | None:
        """Say which tasks of the suite are not asked, and what they need."""
        whole = [choice.name for choice in self._of_suite(judged=True)]
        missing = [name for name in whole if name not in self.choices()]
        if not missing:
            return None
        return (
            f"suite {self.suite} without {', '.join(missing)}, which needs a judge: means are over "
            f"{len(whole) - len(missing)} of its {len(whole)} tasks. Name one with judge: <model>."
        )

    def definitions(self) -> dict[str, Task]:
        """Return the tasks as they are asked, by name."""
        return {name: load_task(choice) for name, choice in self.choices().items()}

    def task_settings(self) -> dict[str, list[str]]:
        """Return, by task, which published setting it follows, what differs, and what this evaluation has changed."""
        drawn = [TaskSampling(**s.model_dump(include={*TaskSampling.model_fields})) for s in self.sampling.values()]
        found = {name: setting_lines(choice, drawn) for name, choice in self.choices().items()}
        return {name: lines for name, lines in found.items() if lines}

    def check(self) -> None:
        """Refuse arms, roles, tasks and settings that do not fit together, and tasks whose data are missing.

        Raises:
            UserError: See above.
        """
        from w2s_align.scoring import scorer_settings

        for scorer in (self.scorer, *self.best_of):
            scorer_settings(scorer)
        self._check_arms()
        if self.lower_is_better and (self.tasks or self.suite):
            raise UserError(
                "lower_is_better is about the scorer of your own prompts, and this evaluation has tasks.",
                fix="Evaluate them in another step.",
            )
        if self.engine.served_model is not None and len(self.arms) > 1:
            raise UserError(
                f"engine.served_model is {self.engine.served_model} for all {len(self.arms)} arms.",
                "They would all get the answers of that one model.",
                "Leave it out: a model is found on the server by its id or its folder.",
            )
        tasks = self.definitions()
        if not tasks and self.prompts is None:
            raise UserError(
                "An evaluation needs prompts, tasks or a suite.", fix="prompts: $problems, or tasks: [gsm8k]"
            )
        if self.prompts is not None and not self.sampling:
            raise UserError("An evaluation needs a sampling setting.", fix="sampling: {greedy: {temperature: 0, ...}}")
        own = [entry.name for entry in self.tasks if isinstance(entry, TaskChoice) and entry.sampling is not None]
        if own and self.sampling:
            raise UserError(
                f"sampling is set for the whole evaluation and for {', '.join(own)}.",
                fix="Set it in one of the two places.",
            )
        check_judging(self.judge, self.judging, self.judge_resources is not None, tasks)
        check_metrics(tasks, self.sampling)
        fixed = [name for name, task in tasks.items() if task.kind in ("likelihood", "lm_eval")]
        if fixed and self.sampling:
            raise UserError(
                f"Nothing is sampled for {', '.join(fixed)}, so sampling cannot be set for it.",
                fix="Leave sampling out (each task then has its own), or give these tasks an evaluation of their own.",
            )
        problems: list[Problem] = []
        choices = self.choices()
        for name, task in tasks.items():
            try:
                check_task(task, self.data_dir)
                if task.kind == "lm_eval":
                    check_lm_eval_task(task.name.removeprefix(LM_EVAL), choices[name].include_path)
                if task.kind == "generate":
                    scorer_settings(task.scorer)
            except UserError as error:
                problems += error.problems
        if problems:
            raise UserError.all(problems)

    def check_among(self, steps: Mapping[str, StepConfig]) -> None:
        """Refuse an answer check of prompts without gold answers."""
        if self.prompts is not None:
            check_gold(self.scorer, self.prompts, steps)

    def _check_arms(self) -> None:
        if not self.arms:
            raise UserError("arms: no model is named.", fix="arms: {mine: <hub id, folder or $step>}")
        for name in (*self.arms, *self.sampling):
            if not NAME.fullmatch(name):
                raise UserError(f"{name!r} cannot name an arm or a setting.", fix="Use letters, digits, - and _.")
        if self.baseline is not None and self.baseline not in self.arms:
            raise UserError(f"baseline: {self.baseline} is not an arm.", fix=did_you_mean(self.baseline, self.arms))
        for name in self.fusion:
            if name not in self.arms:
                raise UserError(f"fusion: {name} is not an arm.", fix=did_you_mean(name, self.arms))
        if not self.roles:
            return
        if self.baseline is None:
            students = [name for name, role in self.roles.items() if role == "student"]
            raise UserError(
                "There are roles and no baseline: the untouched student, which the others are compared with.",
                fix=f"baseline: {students[0] if students else '<arm>'}",
            )
        check_arms(list(self.arms), self.roles, self.baseline, ("student",))

    @property
    def reference_arm(self) -> str:
        """The arm that the others are compared with."""
        return self.baseline or next(iter(self.arms))

    def content(self) -> dict[str, Any]:
        """Return the definitions of the tasks in place of their names, and not where their data lie."""
        definitions = {name: task.content() for name, task in self.definitions().items()}
        own = super().content()
        if not own["fusion"]:  # an option that came later is not there unless it is used: older results stay valid
            del own["fusion"]
        own["judging"].pop("gamed")  # where the file lies; its content is part of the identity
        if not self.lower_is_better:  # an option that came later: what was made without it stays valid
            del own["lower_is_better"]
        return {**own, "tasks": definitions, "suite": None, "data_dir": None, "judge_resources": None}

    def _scorers(self) -> dict[str, str | ScorerSettings]:
        """Return the scorers by their place in the options."""
        return {"scorer": self.scorer, **{f"best_of.{index}": scorer for index, scorer in enumerate(self.best_of)}}

    def references(self) -> Iterator[Reference]:
        """Yield what every step reads, the models that scorers ask, and those of fused arms."""
        yield from super().references()
        for arm, fusion in self.fusion.items():
            for place, model in fusion.models().items():
                yield Reference(("fusion", arm, *place.split(".")), model, MODEL)
        for place, scorer in self._scorers().items():
            for field, value in scorer_models(scorer).items():
                yield Reference((*place.split("."), field), value, NAMED_MODEL)

    def identity(self) -> dict[str, Any]:
        """Return the content of the scorers' models that no step made."""
        found = {place: scorer_identity(scorer) for place, scorer in self._scorers().items()}
        gamed = {"judging.gamed": file_digest(Path(self.judging.gamed).expanduser())} if self.judging.gamed else {}
        return super().identity() | {place: models for place, models in found.items() if models} | gamed

    def claims(self) -> Resources:
        """Take one core: answers are generated by the implied steps, comparing them is quick. A model that scores
        takes a GPU."""
        return Resources(cpus=1, gpus=int(any(scorer_models(scorer) for scorer in self._scorers().values())))

    def implied(self, members: Callable[[str], list[str]]) -> dict[str, StepConfig]:
        """Return the problems of each task, and one generation for each arm, seed, setting and task."""
        choices, tasks = self.choices(), self.definitions()
        found: dict[Place, StepConfig] = {
            Place(task=name): TaskStep(task=choice, data_dir=self.data_dir, seed=self.seed)
            for name, choice in choices.items()
            if tasks[name].kind != "lm_eval"
        }
        settings: dict[str, Sampling | None] = {**self.sampling} or {STANDARD: None}
        asked = [
            (Place(arm, str(index), setting), model, sampling)
            for arm, value in self.arms.items()
            for index, model in enumerate(members(value))
            for setting, sampling in settings.items()
        ]
        judged = [task for task in tasks.values() if task.kind == "judged"]
        for place, model, sampling in asked if judged else ():
            for task in judged:
                drawn = sampling or Sampling(**task.sampling.model_dump())
                answers = self._generation(place.arm, model, Place(task=task.name).reference, drawn)
                found[replace(place, task=task.name, compared=True)] = answers
        for place, model, sampling in asked:
            if self.prompts is not None and sampling is not None:
                own = replace(place, task="prompts" if tasks else "")
                found[own] = self._generation(place.arm, model, self.prompts, sampling)
            for name, task in tasks.items():
                scored = replace(place, task=name)
                found[scored] = (
                    self._judged(scored, members)
                    if task.kind == "judged"
                    else self._asked(place.arm, model, choices[name], task, sampling)
                )
        return {str(place): step for place, step in found.items()}

    def _judged(self, place: Place, members: Callable[[str], list[str]]) -> Preference:
        own = replace(place, compared=True)
        by_baseline = self.judging.reference == "baseline"
        return Preference(
            judge=members(self.judge or "")[0],
            prompts=Place(task=place.task).reference,
            responses=own.reference,
            reference=replace(own, arm=self.reference_arm, index="0").reference if by_baseline else None,
            template=self.judging.template,
            sampling=self.judging.sampling,
            engine=self.judging.engine,
            seed=self.seed,
            resources=self.judge_resources or self.resources,
        )

    def _asked(self, arm: str, model: str, choice: TaskChoice, task: Task, sampling: Sampling | None) -> StepConfig:
        more: dict[str, Any] = {"revision": self.engine.revision, "dtype": self.engine.dtype, "seed": self.seed}
        if task.kind == "lm_eval":
            return LmEvalStep(
                model=model,
                task=task.name.removeprefix(LM_EVAL),
                include_path=choice.include_path,
                shots=choice.shots,
                limit=choice.limit,
                max_tokens=choice.sampling.max_tokens if choice.sampling else None,
                **more,
            )
        if task.kind == "likelihood":
            return Likelihood(model=model, prompts=Place(task=task.name).reference, **more)
        drawn = sampling or Sampling(**task.sampling.model_dump())
        return self._generation(arm, model, Place(task=task.name).reference, drawn)

    def _generation(self, arm: str, model: str, prompts: str, sampling: Sampling) -> Generate:
        fused = {"name": "transformers", "fusion": self.fusion[arm]} if arm in self.fusion else {}
        return Generate(
            model=model,
            prompts=prompts,
            sampling=sampling,
            engine=self.engine.model_copy(update=fused),
            seed=self.seed,
            resources=self.resources,
        )

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows, unless a model scores."""
        return None if any(scorer_models(scorer) for scorer in self._scorers().values()) else "rows"

    def run(self, work: Work) -> None:
        """Score all arms' answers and compare them."""
        import pyarrow as pa

        from w2s_align.evaluation import Arm, ArmRun, evaluate_arms, verdict
        from w2s_align.evaluation.lower_is_better import turned

        evaluated = Evaluated(work.inputs)
        problems = evaluated.problems()
        arms: list[Arm] = []
        runs = evaluated.runs()
        total, done = sum(len(settings) for arm in runs.values() for settings in arm.values()), 0
        for arm, by_index in runs.items():
            made = []
            for index, settings in by_index.items():
                answers: dict[str, Answers] = {}
                seed = evaluated.seed_name(arm, index)
                for setting in settings:
                    answers[setting] = self._scored(work, evaluated, arm, index, setting)
                    done += 1
                    work.progress(done, total, f"{arm} {setting}")
                made.append(ArmRun(seed, answers))
            arms.append(Arm(arm, self.roles.get(arm, "other"), made))
        arms = turned(arms) if self.lower_is_better else arms
        tables = [
            labeled(answers.scores, arm=arm.name, run=run.seed, setting=setting)
            for arm in arms
            for run in arm.runs
            for setting, answers in run.settings.items()
        ]
        tasks = self.definitions()
        results = evaluate_arms(
            problems,
            arms,
            self.reference_arm,
            metrics={name: task.metric for name, task in tasks.items()},
            by_subject=[name for name, task in tasks.items() if task.average == "subjects"],
            gamed=self.judging.gamed_rows(),
            seed=self.seed or 0,
        )
        results = results.model_copy(update={"task_settings": self.task_settings()})
        if missing := self._left_out():
            results = results.model_copy(update={"warnings": [missing, *results.warnings]})
        all_scores = pa.concat_tables(tables)
        work.write(all_scores, "scores")
        (work.out / "results.json").write_text(results.model_dump_json(indent=1), encoding="utf-8")
        conclusion = verdict(results)
        unscored = all_scores["value"].null_count
        work.counts.update(
            problems=problems.num_rows,
            rows_in=all_scores.num_rows,
            kept=all_scores.num_rows - unscored,
            unscored=unscored,
        )
        work.result["verdict"] = json.loads(json.dumps(conclusion.to_dict()))
        work.warnings += conclusion.caveats

    def _scored(self, work: Work, evaluated: Evaluated, arm: str, index: str, setting: str) -> Answers:
        """Score one model's answers of one setting, each task with its own check."""
        import pyarrow as pa

        from w2s_align.evaluation import Answers
        from w2s_align.scoring import score, scorer_settings

        tasks = self.definitions()
        parts: list[pa.Table] = []
        own, _ = open_scorer(self.scorer, "scorer", work)
        opened = [open_scorer(scorer, f"best_of.{index}", work) for index, scorer in enumerate(self.best_of)]
        best_of = [(scorer, name or scorer_settings(scorer).label) for scorer, name in opened]
        choosers: dict[str, list[pa.Table]] = {name: [] for _, name in best_of}
        for asked in evaluated.answers(arm, index, setting):
            if asked.scores is not None:
                parts.append(record_columns(Score, asked.scores))
                continue
            check = tasks[asked.task].scorer if asked.task in tasks else own
            work.warnings += [text for text in scorer_settings(check).warnings() if text not in work.warnings]
            parts.append(score(asked.problems, asked.responses, check).table)
            for scorer, name in best_of:
                if asked.responses.num_rows > asked.problems.num_rows:
                    choosers[name].append(score(asked.problems, asked.responses, scorer, name=name).table)
        responses = pa.concat_tables([asked.responses for asked in evaluated.answers(arm, index, setting)])
        made = {name: pa.concat_tables(found) for name, found in choosers.items() if found}
        return Answers(pa.concat_tables(parts), responses, made)
