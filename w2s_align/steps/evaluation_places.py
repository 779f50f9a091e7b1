"""The names of what an evaluation implies: problems of its tasks, and answers of its arms.

    _tasks/<task>                                         the problems of a task
    <arm>/<index>/<setting>, or with /<task>              one model's answers, or its scores, in one setting
    _tasks/_answers/<arm>/<index>/<setting>/<task>        answers that a judge compares, before it has judged them

They are part of keys, so they stay as they are.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from w2s_align.recipe.graph import IMPLIED

TASKS = "_tasks"
"""No arm can have this name: names begin with a letter or a digit."""
COMPARED = f"{TASKS}/_answers/"


@dataclass(frozen=True)
class Place:
    """One node that an evaluation implies; its text is the node's name within the evaluation.

    Attributes:
        arm: Name of the arm; empty for the problems of a task.
        index: Number of the arm's model, from 0; a text, as in the name.
        setting: Name of the sampling setting.
        task: Name of the task; empty where the evaluation has prompts alone.
        compared: Whether these are answers that a judge compares, before it has judged them.
    """

    arm: str = ""
    index: str = ""
    setting: str = ""
    task: str = ""
    compared: bool = False

    def __str__(self) -> str:
        if not self.arm:
            return f"{TASKS}/{self.task}"
        name = "/".join(part for part in (self.arm, self.index, self.setting, self.task) if part)
        return COMPARED + name if self.compared else name

    @property
    def input(self) -> str:
        """Where the evaluation finds it among its inputs."""
        return f"{IMPLIED}{self}"

    @property
    def reference(self) -> str:
        """How another implied node refers to it."""
        return f"$/{self}"

    @classmethod
    def parse(cls, place: str) -> Place | None:
        """Return what a place among the inputs of an evaluation is; None for one that is not implied."""
        name = place.removeprefix(IMPLIED)
        if name == place:
            return None
        if name.startswith(COMPARED):
            return replace(cls._of_answers(name.removeprefix(COMPARED)), compared=True)
        if name.startswith(f"{TASKS}/"):
            return cls(task=name.removeprefix(f"{TASKS}/"))
        return cls._of_answers(name)

    @classmethod
    def _of_answers(cls, name: str) -> Place:
        arm, index, setting, *task = name.split("/", 3)  # a task's name may have slashes of its own: lab/addition
        return cls(arm, index, setting, task[0] if task else "")
