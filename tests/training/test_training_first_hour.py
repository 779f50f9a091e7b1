"""Own questions and local models, from generation to a comparison, in a recipe of 15 lines."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

RECIPE = """\
name: own
steps:
  train: {{kind: prompts, source: own.jsonl, hold_out: 0.3, part: train}}
  test:  {{kind: prompts, source: own.jsonl, hold_out: 0.3, part: test}}
  good:  {{kind: generate, model: {good}, prompts: $train, sampling: &draw {{temperature: 1, max_tokens: 8}}}}
  bad:   {{kind: generate, model: {bad}, prompts: $train, sampling: *draw}}
  pairs: {{kind: pair, rule: model_order, chosen: $good, rejected: $bad, filters: {{truncated: false}}}}
  dpo:   {{kind: dpo, model: {good}, pairs: $pairs, learning_rate: 1e-3, batch_size: 8}}
  scores:
    kind: evaluate
    prompts: $test
    arms: {{before: {good}, other: {bad}, dpo: $dpo}}
    sampling: {{greedy: {{temperature: 0, max_tokens: 8}}}}
"""


def test_fifteen_lines_generate_pair_tune_evaluate_and_compare(tiny: Any, tmp_path: Path) -> None:
    assert len(RECIPE.splitlines()) <= 15
    models = {
        name: tiny.model(tmp_path / name, tiny.tokenizer(), seed=seed) for name, seed in (("good", 1), ("bad", 2))
    }
    rows = [{"question": f"{i}+1=", "solution": str(i + 1), "level": "easy"} for i in range(60)]
    (tmp_path / "own.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "own.yaml").write_text(RECIPE.format(**{name: path.name for name, path in models.items()}))
    environment = os.environ | {"COLUMNS": "100", "W2S_NO_INSTALL": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "w2s_align.cli", "run", "own.yaml", "good.engine.name=transformers",
         "bad.engine.name=transformers", "scores.engine.name=transformers"],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=1200,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert "Columns of own.jsonl that were not read: level." in said
    assert "The column solution is read as the answer" in said
    table = [line.split()[0] for line in said.splitlines() if line.strip().startswith(("before", "other", "dpo "))]
    assert {"before", "other", "dpo"} <= set(table) and "against before" in said
    assert "steps/dpo/model" in said and "steps/pairs/audit.html" in said
