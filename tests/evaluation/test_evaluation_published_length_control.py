"""The published length-controlled win rate: planted values, the pull of the gamed rows, and the file."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pytest
from scipy import special

from w2s_align.errors import UserError
from w2s_align.evaluation.published_length_control import GamedRows, published_win_rate, read_gamed

N = 805


def world(theta: float, phi: float, psi: float, seed: int = 0):
    """Preferences for a model with longer answers, and gamed rows of a reference for which theta is 0."""
    rng = np.random.default_rng(seed)
    difficulty = rng.normal(0, 1, N)
    delta = np.round(rng.normal(400, 600, N))
    z = -delta / delta.std(ddof=1)
    wins = rng.random(N) < special.expit(theta + phi * np.tanh(z) + psi * difficulty)
    lengths = np.concatenate([rng.normal(1.5, 0.5, N), rng.normal(-1.5, 0.5, N)])
    twice = np.tile(difficulty, 2)
    gamed = rng.random(2 * N) < special.expit(phi * np.tanh(lengths) + psi * twice)
    rows = GamedRows(gamed.astype(float), lengths, twice, dict(enumerate(difficulty)))
    return wins.astype(float), delta, difficulty, rows


@pytest.mark.parametrize("theta", [0.0, 0.3, -0.5])
def test_a_planted_win_rate_is_found_where_the_raw_one_is_off(theta: float) -> None:
    wins, delta, difficulty, gamed = world(theta, -1.0, 0.8)
    found = published_win_rate(wins, delta, difficulty, gamed)
    truth = float(special.expit(theta + 0.8 * difficulty).mean())
    assert wins.mean() - truth > 0.06  # longer answers win more often
    assert found.value == pytest.approx(truth, abs=0.06)
    assert found.low < found.value < found.high and found.method == "published fit of AlpacaEval 2"


def test_few_own_answers_lean_on_the_gamed_rows() -> None:
    """Ten answers, all longer and all won: without the gamed rows length and skill could not be told apart."""
    _, _, difficulty, gamed = world(0.3, -1.0, 0.8)
    few = published_win_rate(np.ones(10), np.full(10, 800.0) + np.arange(10), difficulty[:10], gamed)
    none = GamedRows(np.zeros(0), np.zeros(0), np.zeros(0), {})
    alone = published_win_rate(np.ones(10), np.full(10, 800.0) + np.arange(10), difficulty[:10], none)
    assert few.value is not None and alone.value is not None and few.value != pytest.approx(alone.value, abs=1e-3)


def test_unread_judgments_are_left_out_of_the_fit_and_not_of_the_mean() -> None:
    wins, delta, difficulty, gamed = world(0.0, -1.0, 0.8)
    wins[::7] = np.nan
    found = published_win_rate(wins, delta, difficulty, gamed)
    assert found.value == pytest.approx(float(special.expit(0.8 * difficulty).mean()), abs=0.06)


def write(path: Path, rows: list[dict[str, object]]) -> Path:
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


ROW = {
    "model": "gpt4_gamed", "preference": 0.25, "index": 3, "std_delta_len": -1.5, "instruction_difficulty": 0.5,
    "not_gamed_baseline": False,
}  # fmt: skip


def test_the_file_is_read_and_its_faults_are_said(tmp_path: Path) -> None:
    path = write(tmp_path / "df_gamed.csv", [ROW, ROW | {"index": 4, "preference": "", "instruction_difficulty": -1}])
    found = read_gamed(path)
    assert found.preferences.tolist() == [0.25] and found.by_index == {3: 0.5, 4: -1.0}
    with pytest.raises(UserError, match=r"df_gamed\.csv:2 has 'x' as index"):
        read_gamed(write(path, [ROW | {"index": "x"}]))
    with pytest.raises(UserError, match="has no rows with std_delta_len"):
        read_gamed(write(path, [{k: v for k, v in ROW.items() if k != "std_delta_len"}]))
    with pytest.raises(UserError, match="not_gamed_baseline 'True'"):
        read_gamed(write(path, [ROW | {"not_gamed_baseline": True}]))
    with pytest.raises(UserError, match="cannot be read"):
        read_gamed(tmp_path / "nothing.csv")
