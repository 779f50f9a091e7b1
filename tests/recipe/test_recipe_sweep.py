"""Points of a sweep: grids, paired values, files, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from w2s_align.errors import UserError
from w2s_align.recipe.sweep import sweep_points


def problems(*texts: str, file: Path | None = None, paired: bool = False) -> list[str]:
    with pytest.raises(UserError) as caught:
        sweep_points(texts, file, paired=paired)
    return [str(problem) for problem in caught.value.problems]


def test_a_grid_has_every_combination_and_single_values_are_overrides() -> None:
    points, overrides = sweep_points(["dpo.beta=0.1,0.5", "seed=7", "dpo.learning_rate=1.0e-6,1.0e-5"])
    assert overrides == ["seed=7"]
    assert [dict(point.values) for point in points] == [
        {"dpo.beta": 0.1, "dpo.learning_rate": 1e-6},
        {"dpo.beta": 0.1, "dpo.learning_rate": 1e-5},
        {"dpo.beta": 0.5, "dpo.learning_rate": 1e-6},
        {"dpo.beta": 0.5, "dpo.learning_rate": 1e-5},
    ]
    assert points[1].overrides == ["dpo.beta=0.1", "dpo.learning_rate=1e-05"]
    assert points[1].label == "beta=0.1, learning_rate=1e-05"


def test_numbers_without_a_dot_are_numbers_and_names_that_end_alike_are_whole() -> None:
    points, _ = sweep_points(["a.seed=1,2", "b.seed=1e-5,abc1e5"])
    assert points[0].values == {"a.seed": 1, "b.seed": 1e-5}
    assert points[1].values["b.seed"] == "abc1e5"
    assert points[0].label == "a.seed=1, b.seed=1e-05"


def test_paired_values_go_together() -> None:
    points, _ = sweep_points(["dpo.beta=5,10", "dpo.epochs=1,2"], paired=True)
    assert [dict(point.values) for point in points] == [
        {"dpo.beta": 5, "dpo.epochs": 1},
        {"dpo.beta": 10, "dpo.epochs": 2},
    ]


def test_a_list_is_one_value() -> None:
    points, overrides = sweep_points(["dpo.seeds=[1, 2]", "lab.slip=[0.1, 0.2],[0.3, 0.4]"])
    assert overrides == ["dpo.seeds=[1, 2]"]
    assert [point.values["lab.slip"] for point in points] == [[0.1, 0.2], [0.3, 0.4]]


def test_names_are_usable_and_different() -> None:
    points, _ = sweep_points(["dpo.loss=sigmoid,sigmoid_norm", "dpo.model=a/b,a/c"])
    slugs = [point.slug for point in points]
    assert len(set(slugs)) == 4
    assert all(slug.replace("_", "").replace("-", "").isalnum() for slug in slugs)


def test_a_file_lists_points(tmp_path: Path) -> None:
    file = tmp_path / "ladder.yaml"
    file.write_text("- {dpo.beta: 5, weak.model: some/a}\n- {dpo.beta: 10}\n")
    points, overrides = sweep_points(["seed=1"], file)
    assert [dict(point.values) for point in points] == [{"dpo.beta": 5, "weak.model": "some/a"}, {"dpo.beta": 10}]
    assert overrides == ["seed=1"]


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    assert problems("dpo.beta", "dpo.beta=", "beta=1,2", "dpo.x=1,2", "dpo.x=3,4") == [
        "command line (dpo.beta)  dpo.beta has no values.  Write step.field=a,b,c, e.g. dpo.beta=0.1,0.5.",
        "command line (dpo.beta=)  dpo.beta= has no values.  Write step.field=a,b,c, e.g. dpo.beta=0.1,0.5.",
        "command line (beta=1,2)  beta is not an option of a step.  Write step.field=a,b,c.",
        "command line (dpo.x=3,4)  dpo.x is swept twice.  List all its values at once.",
    ]
    assert problems() == ["Nothing to sweep.  List several values: dpo.beta=0.05,0.1,0.5"]
    assert "appears twice in the sweep" in problems("dpo.beta=1,1")[0]
    assert "dpo.a has 2, dpo.b has 3" in problems("dpo.a=1,2", "dpo.b=1,2,3", paired=True)[0]
    (tmp_path / "bad.yaml").write_text("dpo.beta: 5\n")
    assert "is not a sweep" in problems(file=tmp_path / "bad.yaml")[0]
    assert "Cannot read the sweep" in problems(file=tmp_path / "none.yaml")[0]
    assert "already lists the points" in problems("dpo.beta=1,2", file=tmp_path / "bad.yaml")[0]
