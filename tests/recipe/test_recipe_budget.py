"""Budgets of labels as points of a sweep: the golden grid, pools in proportion, end points, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from w2s_align.errors import UserError
from w2s_align.recipe import apply_overrides, parse_document
from w2s_align.recipe.budget import purchases
from w2s_align.recipe.sweep import Point, read_points

GOLDEN = {  # (weak, exact) at a weak price of .1, for shares .8, .6, .4, .2, .05
    16: [(40, 12), (70, 9), (100, 6), (130, 3), (160, 0)],
    64: [(130, 51), (260, 38), (390, 25), (520, 12), (610, 3)],
    256: [(520, 204), (1030, 153), (1540, 102), (2050, 51), (2440, 12)],
    1024: [(2050, 819), (4100, 614), (6150, 409), (8200, 204), (9730, 51)],
    4096: [(8200, 3276), (16390, 2457), (24580, 1638), (32770, 819), (38920, 204)],
}
FILE = {"budgets": [16, 64], "weak_prices": [0.1], "weak": ["cheap.number"], "exact": ["dear.number", "unsure.number"]}
FILE |= {"pools": ["one.share", "two.share"], "no_weak": {"first": None}, "no_exact": {"second": None}}


def points(folder: Path, **changes: object) -> list[Point]:
    path = folder / "budgets.yaml"
    path.write_text(yaml.safe_dump(FILE | changes))
    return read_points(path)


def test_the_golden_grid() -> None:
    found = purchases(GOLDEN, 0.1)
    for budget, wanted in GOLDEN.items():
        assert [(p.weak, p.exact) for p in found if p.budget == budget] == wanted
    assert [(p.weak, p.exact) for p in purchases([256], 0.5)] == [
        (104, 204),
        (206, 153),
        (308, 102),
        (410, 51),
        (488, 12),
    ]


@pytest.mark.parametrize("price", [0.01, 0.1, 0.5])
def test_no_purchase_exceeds_its_budget_and_none_leaves_a_weak_label_unbought(price: float) -> None:
    for found in purchases([16, 64, 256, 512, 1024, 4096], price, (0, 0.05, 0.5, 1)):
        assert found.budget - price < found.cost(price) <= found.budget + 1e-6


def test_end_points_and_the_number_of_items() -> None:
    first, last = purchases([64], 0.1, (0, 1))
    assert (first.weak, first.exact, last.weak, last.exact) == (640, 0, 0, 64)
    assert [p.exact for p in purchases([16, 64], 0.1, (1,), most_exact=20)] == [16]
    for wrong in ({"price": 0}, {"budgets": [0]}, {"shares": [1.2]}):
        with pytest.raises(ValueError):
            purchases(**{"budgets": [16], "price": 0.1} | wrong)  # type: ignore[arg-type]


def test_a_file_of_budgets_is_a_point_for_each_purchase(tmp_path: Path) -> None:
    found = points(tmp_path)
    numbers = [(p.values.get("cheap.number", 0), p.values.get("dear.number", 0)) for p in found]
    assert numbers == [(0, 16), *GOLDEN[16], (0, 64), *GOLDEN[64], (640, 0)]  # (160, 0) is bought by two shares
    assert {p.group for p in found} == {"a weak label costs 0.1"}
    assert [round(p.cost or 0) for p in found] == [16] * 6 + [64] * 7
    mixed = found[1].values
    assert mixed["unsure.number"] == 12 and mixed["one.share"] == mixed["two.share"] == pytest.approx(40 / 52)
    assert found[0].values == {"dear.number": 16, "unsure.number": 16, "first": None}
    assert found[5].values == {"cheap.number": 160, "second": None}
    assert found[1].label == "40 weak, 12 exact (a weak label costs 0.1)"
    assert len({p.slug for p in found}) == len(found)


def test_each_price_has_points_of_its_own_and_limits_leave_out(tmp_path: Path) -> None:
    found = points(tmp_path, weak_prices=[0.5, 0.1], shares=[1, 0], also=[[0, 500]], most_weak=200, most_exact=40)
    assert [p.name for p in found if p.group.endswith("0.5")] == [
        *("0 weak, 16 exact", "32 weak, 0 exact", "128 weak, 0 exact", "0 weak, 500 exact")
    ]
    assert [p.name for p in found if p.group.endswith("0.1")] == [
        *("0 weak, 16 exact", "160 weak, 0 exact", "0 weak, 500 exact")
    ]
    assert len({p.slug for p in found}) == len(found)  # the same purchase at another price is another run


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"budgets": []}, "budgets: "),
        ({"weak_prices": [0]}, "weak_prices.0: "),
        ({"shares": [1.5]}, "shares.0: "),
        ({"weak": ["cheap"]}, "cheap is not an option; write step.field"),
        ({"price": 1}, "price: "),
        ({"most_weak": 1, "most_exact": 1}, "budgets.yaml buys nothing"),
    ],
)
def test_a_file_that_cannot_work_is_refused(tmp_path: Path, changes: dict[str, object], said: str) -> None:
    with pytest.raises(UserError) as caught:
        points(tmp_path, **changes)
    assert said in str(caught.value) and "budgets.yaml" in str(caught.value)


def test_null_leaves_out_a_step_and_a_value_does_not_set_a_whole_one() -> None:
    text = "name: x\nsteps:\n  a: {kind: prompts}\n  b: {kind: prompts}\n"
    document = parse_document(text, "x.yaml")
    apply_overrides(document, ["a.limit=3", "a=null"])
    assert list(document.data["steps"]) == ["b"]
    with pytest.raises(UserError) as caught:
        apply_overrides(document, ["b=3"])
    assert "b=null leaves the step out" in str(caught.value)
