"""best_of: several ways to choose one of a prompt's responses, compared by how often the chosen one is right.

Reads responses (and the prompts behind them), their scores against gold answers, and the scores that choose: of any
scorer, of combine; writes data/scores.parquet and results.json (evaluation.Results), as evaluate does for models.
"""

from __future__ import annotations

import json
from typing import ClassVar, Literal

from pydantic import Field

from w2s_align.errors import UserError, did_you_mean
from w2s_align.recipe.schema import NAME, ArtifactType, Resources, ResponsesRef, ScoresRef
from w2s_align.steps.step import Step
from w2s_align.steps.tables import labeled
from w2s_align.steps.work import Work


class BestOf(Step):
    """Compare ways to choose one of several responses: best-of-n by any scores, with the gap to a perfect choice."""

    kind: Literal["best_of"] = "best_of"
    responses: ResponsesRef
    """Several responses to each prompt."""
    gold: ScoresRef
    """What each of them is worth: scores against gold answers."""
    ways: dict[str, ScoresRef] = Field(min_length=1)
    """Scores that choose, by the name of the way: {mean: $mean, label_model: $panel}. The response with the highest
    score is chosen, of equal ones any. one_response (none is chosen) and oracle (the best is) are always compared."""
    roles: dict[str, Literal["treatment", "control", "other"]] = {}
    """control: a way that the treatments have to beat. other: shown, not judged. Default: treatment."""
    baseline: str = "one_response"
    """What every way is compared with: one_response, or one of the ways."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "results"
    libraries: ClassVar[tuple[str, ...]] = ("scipy",)

    def check(self) -> None:
        """Refuse names that are no arm.

        Raises:
            UserError: See above.
        """
        for name in self.ways:
            if not NAME.fullmatch(name) or name in ("one_response", "oracle"):
                raise UserError(f"{name!r} cannot name a way to choose.", fix="Use other letters, digits, - and _.")
        for option, named in (("roles", list(self.roles)), ("baseline", [self.baseline])):
            known = [*self.ways, *(["one_response"] if option == "baseline" else [])]
            for name in named:
                if name not in known:
                    raise UserError(f"{option}: {name} is not a way to choose.", fix=did_you_mean(name, known))

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Choose by every way, and compare."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from w2s_align.evaluation import verdict
        from w2s_align.evaluation.choice import compare_choices

        gold = work.inputs["gold"].table()
        prompts = work.inputs["responses"].prompts().table()
        problems = prompts.filter(pc.is_in(prompts["id"], gold["prompt_id"].unique()))
        ways = {name: work.inputs[f"ways.{name}"].table() for name in self.ways}
        results, arms = compare_choices(
            problems, gold, ways, roles=self.roles, baseline=self.baseline, seed=self.seed or 0
        )
        setting = results.settings[0]
        tables = [
            labeled(arm.runs[0].settings[setting].scores, arm=arm.name, run="0", setting=setting) for arm in arms
        ]
        work.write(pa.concat_tables(tables), "scores")
        (work.out / "results.json").write_text(results.model_dump_json(indent=1), encoding="utf-8")
        conclusion = verdict(results)
        work.counts.update(
            problems=problems.num_rows,
            rows_in=gold.num_rows,
            kept=gold.num_rows - gold["value"].null_count,
            unscored=gold["value"].null_count,
        )
        work.result["verdict"] = json.loads(json.dumps(conclusion.to_dict()))
        work.warnings += conclusion.caveats
