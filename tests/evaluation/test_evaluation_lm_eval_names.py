"""Names of lm-eval's tasks are looked up without lm-eval's own slow index."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.evaluation.lm_eval_names import check_lm_eval_task

pytest.importorskip("lm_eval")


@pytest.mark.parametrize("task", ["arc_easy", "mmlu", "mmlu_abstract_algebra", "gsm8k", "leaderboard_bbh"])
def test_known_tasks_groups_and_quoted_names_pass_without_loading_any_task(
    task: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("lm-eval's index was asked")

    monkeypatch.setattr("lm_eval.tasks.TaskManager", refuse)
    check_lm_eval_task(task)


def test_a_wrong_name_is_refused_with_the_nearest_ones(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Index:
        def __init__(self, include_path: str | None) -> None:
            self.all_tasks = ["named_in_code"]

    monkeypatch.setattr("lm_eval.tasks.TaskManager", Index)  # the real one takes half a minute
    with pytest.raises(UserError, match=r"lm-eval has no task arc_eazy.*Nearest: arc_easy"):
        check_lm_eval_task("arc_eazy")
    check_lm_eval_task("named_in_code")
    (tmp_path / "own.yaml").write_text("task: my_own\n")
    check_lm_eval_task("my_own", str(tmp_path))
