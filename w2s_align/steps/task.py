"""task: the problems of a benchmark, as they are asked, with their gold answers.

Writes data/prompts.parquet (records.Prompt). `evaluate` makes one for each of its tasks by itself.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from w2s_align.artifacts.identity import file_digest, hub_revision
from w2s_align.evaluation.published import published_digest, published_examples
from w2s_align.evaluation.task import GENERATORS, Task, TaskChoice, load_task
from w2s_align.files import installed_version
from w2s_align.recipe.schema import ArtifactType, Resources
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class TaskStep(Step):
    """Load the problems of a benchmark, from the hub or from a mirror folder."""

    kind: Literal["task"] = "task"
    task: str | TaskChoice
    """Name of a task, a YAML file, lab/<task>, reasoning_gym/<dataset>; or {name: ..., shots: ..., limit: ...}."""
    data_dir: str | None = None
    """Mirror folder with the hub's files: <data_dir>/<owner>/<dataset>/... Default: W2S_DATA_DIR, else the hub."""
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "prompts"

    def content(self) -> dict[str, Any]:
        """Return the whole definition of the task; where its data lie does not count."""
        return {**super().content(), "task": self.definition().content(), "data_dir": None}

    def definition(self) -> Task:
        """Return the task with its settings."""
        return load_task(self.task)

    def check(self) -> None:
        """Refuse a task that does not exist, and a mirror folder that lacks its data."""
        check_task(self.definition(), self.data_dir)

    def identity(self) -> dict[str, Any]:
        """Return the digests of local files, the revision on the hub, or the version of a generator."""
        task = self.definition()
        files = task.published_files()
        return self._data_identity(task) | ({"published examples": published_digest(files)} if files else {})

    def _data_identity(self, task: Task) -> dict[str, Any]:
        from w2s_align.evaluation.task_rows import mirror_files, mirror_folder

        if task.data.source is not None:
            if task.data.source.startswith("reasoning_gym/"):
                return {"reasoning-gym": installed_version("reasoning-gym")}
            return {} if task.data.source.startswith(GENERATORS) else {"file": file_digest(local_file(task))}
        files = task.published_files()
        folder = mirror_folder(self.data_dir)
        if folder is None:
            return {"revision": hub_revision(task.data.repo or "", "dataset", None)}
        splits = [task.data.split] + ([task.data.shots] if task.data.shots and task.shots and not files else [])
        configs = list[str | None](task.data.configs) or [task.data.config]
        return {
            f"{split}/{config}": [file_digest(path) for path in mirror_files(task, split, config, folder)]
            for split in dict.fromkeys(splits)
            for config in configs
        }

    def run(self, work: Work) -> None:
        """Load the problems and write them."""
        from w2s_align.evaluation.task_prompts import task_problems

        problems = task_problems(self.definition(), seed=self.seed or 0, data_dir=self.data_dir)
        work.write(problems.table, "prompts")
        work.counts.update(problems.counts)


def local_file(task: Task) -> Any:
    """Return the path of a task's local file."""
    from pathlib import Path

    return Path(task.data.source or "").expanduser()


def check_task(task: Task, data_dir: str | None) -> None:
    """Refuse a task whose data cannot be there, or that has fewer published examples than it is to show.

    Raises:
        UserError: With how to get them.
    """
    from w2s_align.errors import UserError
    from w2s_align.evaluation.task_rows import mirror_files, mirror_folder

    if task.kind == "lm_eval":
        return
    for file in task.published_files():
        if (known := len(published_examples(file).rows)) < task.shots:
            raise UserError(
                f"The task {task.name} is to be asked with {task.shots} examples, and {known} are published.",
                fix=f"shots: {known}, or examples of your own (examples: [...]).",
            )
    if task.data.source is not None:
        if not task.data.source.startswith(GENERATORS) and not local_file(task).is_file():
            raise UserError(f"There is no file {task.data.source}.", why=f"The task {task.name} reads it.")
        return
    if task.data.repo is None:
        raise UserError(f"The task {task.name} says no source of its data.", fix="data: {repo: ...} or {source: ...}")
    folder = mirror_folder(data_dir)
    if folder is not None:
        for config in list[str | None](task.data.configs) or [task.data.config]:
            mirror_files(task, task.data.split, config, folder)
