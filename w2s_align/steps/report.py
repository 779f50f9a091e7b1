"""report: one self-contained page and a Markdown summary of an evaluation and everything it was made from.

Reads results and, through them, every artifact behind; writes report.html, report.md, report.json, plots/, and
cards/: the model and dataset cards with the evaluation in them. Models go to the hub with these cards, when asked.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.identity import looks_local
from w2s_align.errors import UserError
from w2s_align.evaluation.task import GENERATORS
from w2s_align.interchange.readers import ROW_FILES
from w2s_align.recipe.schema import ArtifactType, Reads, Resources, ResultsRef
from w2s_align.steps.evaluation_inputs import Evaluated
from w2s_align.steps.evaluation_places import Place
from w2s_align.steps.step import Step
from w2s_align.steps.tables import behind
from w2s_align.steps.work import Work, merge_warnings

if TYPE_CHECKING:
    from w2s_align.evaluation import Results, Verdict
    from w2s_align.reporting import PairAudit, Sample, StepCost, TrainingCurve


class ReportStep(Step):
    """Make the page: verdict, arms, pairs, training curves, samples, cost, recipe, versions."""

    kind: Literal["report"] = "report"
    of: ResultsRef
    """The evaluation that it is about."""
    title: str | None = None
    """Title of the page. Default: the recipe's name."""
    push_to_hub: dict[str, Annotated[str, Reads(("model",))]] = {}
    """Repositories on the hub, and the evaluated model that goes there with its card: {me/my-student: $dpo@1}. The
    token is that in HF_TOKEN, or of `hf auth login`."""
    private: bool = True
    """Whether the models on the hub are for their owner only."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "report"
    uses_seed: ClassVar[bool] = False
    shows_recipe: ClassVar[bool] = True
    version: ClassVar[int] = 5

    def check(self) -> None:
        """Refuse a push that cannot work."""
        from w2s_align.hub import check_push

        for repository in self.push_to_hub:
            check_push(repository)

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Gather everything behind the results and write the page."""
        from w2s_align.evaluation import Results, Verdict
        from w2s_align.reporting import ReportData, write_report

        source = work.inputs["of"]
        for artifact in behind(source):
            artifact.verify(lambda name: not name.startswith("model/"))  # all numbers that are shown, no weights
        results = Results.model_validate_json(source.text("results.json"))
        verdict = Verdict(**source.manifest["result"]["verdict"])
        if results.study == "choice":
            self._write_choice(work, results, verdict)
            return
        if results.study == "pairs":
            self._write_pairs(work, results, verdict)
            return
        names = work.recipe["names"]
        sources = [(names.get(f"{a.kind}/{a.key}", a.manifest["name"]), a) for a in behind(source)]
        samples, total = _samples(source, results, verdict.arm)
        data = ReportData(
            title=self.title or work.recipe["name"],
            subtitle=f"seed {work.recipe['seed']}",
            recipe=work.recipe["text"],
            results=results,
            verdict=verdict,
            pairs=[_pairs(name, a) for name, a in sources if a.type == "pairs"],
            curves=[_curve(name, a) for name, a in sources if "alarms" in a.manifest["result"]],
            samples=samples,
            samples_total=total,
            steps=[_cost(name, a) for name, a in sources],
            versions={k: v for _, a in sources for k, v in a.manifest["versions"].items()},
            warnings=merge_warnings(
                (name, text)
                for name, artifact in sources
                for text in artifact.manifest["warnings"]
                if artifact is not source  # its warnings are the verdict's caveats
            ),
        )
        write_report(data, work.out)
        cards = _write_cards(work.out / "cards", sources, results, verdict.sentence, work.recipe["text"])
        for repository in self.push_to_hub:
            pushed = self._push(work, repository, work.inputs[f"push_to_hub.{repository}"], cards)
            work.result.setdefault("pushed", {})[repository] = pushed
        work.result["verdict"] = verdict.sentence
        work.counts.update(kept=len(samples), problems=total)

    def _write_pairs(self, work: Work, results: Results, verdict: Verdict) -> None:
        """Write the page of models that order pairs: they write nothing that could be shown as answers."""
        from w2s_align.reporting.article import write_article
        from w2s_align.reporting.pairs_page import pairs_article

        if self.push_to_hub:
            raise UserError("push_to_hub: the page of evaluate_pairs makes no model cards.", fix="Leave it out.")
        title = self.title or work.recipe["name"]
        write_article(pairs_article(title, results, verdict, work.recipe["text"]), work.out)
        work.result["verdict"] = verdict.sentence
        work.counts.update(kept=len(results.arms), problems=results.problems)

    def _write_choice(self, work: Work, results: Results, verdict: Verdict) -> None:
        """Write the page of ways to choose: no model was trained, so there are no cards, curves and pairs."""
        from w2s_align.reporting.article import write_article
        from w2s_align.reporting.choice_page import choice_article
        from w2s_align.scoring.panel import Panel

        if self.push_to_hub:
            raise UserError("push_to_hub: a comparison of ways to choose has no model.", fix="Leave it out.")
        names = work.recipe["names"]
        panels = [
            (names.get(f"{a.kind}/{a.key}", a.manifest["name"]), Panel.from_json(a.manifest["result"]["panel"]))
            for a in behind(work.inputs["of"])
            if "panel" in a.manifest["result"]
        ]
        title = self.title or work.recipe["name"]
        write_article(choice_article(title, results, verdict, panels, work.recipe["text"]), work.out)
        work.result["verdict"] = verdict.sentence
        work.counts.update(kept=len(results.arms), problems=results.problems)

    def _push(self, work: Work, repository: str, model: Artifact, cards: dict[str, Path]) -> str:
        """Push a model with its card of this report as one commit, from a folder of links."""
        from w2s_align.hub import push_folder

        if model.key not in cards:
            raise UserError(
                f"{self.push_to_hub[repository]} cannot be pushed to {repository} with its numbers.",
                f"The evaluation {self.of} has no arm with this model.",
                "Add it to the arms, or take it out of push_to_hub.",
            )
        work.progress(0, 0, f"pushing to {repository}")
        folder = work.out / "push"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        for file in model.model.iterdir():
            (folder / file.name).symlink_to(file)
        (folder / "README.md").unlink(missing_ok=True)
        (folder / "README.md").symlink_to(cards[model.key].absolute())
        address = push_folder(folder, repository, "model", private=self.private, message="Upload model and evaluation")
        shutil.rmtree(folder)
        return address


def _write_cards(
    folder: Path, sources: list[tuple[str, Artifact]], results: Results, sentence: str, recipe: str
) -> dict[str, Path]:
    """Write the card of every model that an arm is and a step made, and of every data set, with the evaluation in
    it; return them by the key of the artifact."""
    from w2s_align.reporting.cards import dataset_card, model_card

    folder.mkdir(exist_ok=True)
    source = sources[-1][1]
    arms: dict[str, str] = {}
    for place, asked in source.inputs():
        answers = Place.parse(place)
        if answers is not None and answers.arm and "model" in asked.manifest["inputs"]:
            arms[asked.input("model").key] = answers.arm
    names = {artifact.key: name for name, artifact in sources}
    cards: dict[str, Path] = {}
    for name, artifact in sources:
        readme = (artifact.model if artifact.type == "model" else artifact.path) / "README.md"
        text = readme.read_text(encoding="utf-8") if readme.is_file() else ""
        if artifact.key in arms:
            made_from = [_cost(names[a.key], a) for a in behind(artifact)]
            arm = arms[artifact.key]
            origin = origin_of(behind(artifact))
            card = model_card(text, results, arm, name, sentence, made_from=made_from, recipe=recipe, origin=origin)
        elif artifact.type == "pairs":
            card = dataset_card(text, results, sentence)
        else:
            continue
        cards[artifact.key] = folder / f"{name.replace('/', '.')}.md"
        cards[artifact.key].write_text(card, encoding="utf-8")
    return cards


def origin_of(made_from: Sequence[Artifact]) -> dict[str, Any]:
    """Return what the hub's metadata says of where a model comes from: base model, license and data sets.

    Args:
        made_from: The model's artifact and all it was made from, each after what it read.
    """
    from w2s_align.pairing.licenses import stated_license

    found: dict[str, Any] = {"datasets": []}
    trained = made_from[-1]
    while "model" in trained.manifest["inputs"]:
        trained = trained.input("model")
    base = trained.manifest["options"].get("model")
    if isinstance(base, str) and not looks_local(base):
        found |= {"base_model": base, "license": stated_license(base)}
    for artifact in made_from:
        source = artifact.manifest["options"].get("source")
        if artifact.type in ("pairs", "prompts") and isinstance(source, str) and _is_hub_dataset(source):
            found["datasets"].append(source)
    found["datasets"] = list(dict.fromkeys(found["datasets"]))
    return found


def _is_hub_dataset(source: str) -> bool:
    known = source.startswith(GENERATORS) or looks_local(source) or Path(source).suffix in ROW_FILES
    return source.count("/") == 1 and not known


def _pairs(name: str, artifact: Artifact) -> PairAudit:
    import pyarrow.parquet as pq

    from w2s_align.pairing import Audit
    from w2s_align.reporting import PairAudit

    # no texts: a million pairs have gigabytes of them
    pairs = pq.ParquetDataset(artifact.files()).read(["rule", "delta"])
    lengths = pq.read_table(artifact.path / "lengths.parquet")
    return PairAudit.of(name, Audit.from_json(artifact.manifest["result"]["audit"]), pairs, lengths)


def _curve(name: str, artifact: Artifact) -> TrainingCurve:
    from w2s_align.reporting import Alarm, TrainingCurve

    lines = (artifact.path / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    rows = [json.loads(line) for line in lines]
    result = artifact.manifest["result"]
    for measured in result.get("held_out", []):
        rows.append({name: value for name, value in measured.items() if name in ("step", "accuracy")})
        rows[-1]["loss/held_out"] = measured.get("loss")
    alarms = [Alarm(alarm["message"], alarm.get("step")) for alarm in result["alarms"]]
    model, _, seed = name.partition("@")  # dpo@1: the runner names a training with its seed
    return TrainingCurve(model, artifact.kind, rows, alarms, seed)


def _samples(source: Artifact, results: Results, treatment: str | None) -> tuple[list[Sample], int]:
    """Put the first seed's answers of all arms side by side, in the setting that the verdict is about."""
    import pyarrow as pa
    import pyarrow.compute as pc

    from w2s_align.reporting import collect_samples

    evaluated = Evaluated.of(source)
    setting = results.settings[0]
    scores = source.table("scores")
    arms = {}
    for arm in results.arms:
        responses = pa.concat_tables([asked.responses for asked in evaluated.answers(arm.name, "0", setting)])
        run = arm.settings[setting].seeds[0].seed
        mine = (pc.field("arm") == arm.name) & (pc.field("run") == run) & (pc.field("setting") == setting)
        arms[arm.name] = (responses, scores.filter(mine))
    problems = evaluated.problems()
    return collect_samples(problems, arms, baseline=results.baseline, treatment=treatment or results.baseline)


def _cost(name: str, artifact: Artifact) -> StepCost:
    from w2s_align.reporting import StepCost

    manifest = artifact.manifest
    counts, result = manifest["counts"], manifest["result"]
    return StepCost(
        name=name,
        kind=artifact.kind,
        seconds=manifest["seconds"],
        rows=counts.get("kept"),
        tokens=result.get("completion_tokens") or result.get("tokens"),
        key=artifact.key,
        gpu_seconds=result.get("gpu_seconds"),
        cost=result.get("cost"),
        counts={name: counts[name] for name in ("dropped", "cut", "error", "unscored") if counts.get(name)},
    )
