"""Small answers with the value that a careful reader gives them, grouped by kind, through the public ``score``."""

import json
from collections import defaultdict
from pathlib import Path

import pytest

from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring import score
from w2s_align.scoring.scorers.accepted_answers import overlap

HERE = Path(__file__).parent


def wrong(name: str) -> tuple[int, list[str]]:
    """Score the rows of a file; return how many there are and those whose value is another than expected."""
    rows = [json.loads(line) for line in (HERE / name).read_text(encoding="utf-8").splitlines()]
    groups = defaultdict(list)
    for number, row in enumerate(rows):
        groups[row["scorer"], row["task"]].append((number, row))
    found = []
    for (scorer, task), members in groups.items():
        prompts = [Prompt.of(f"case {n}", answer=r["gold"], task=task, meta=r["meta"]) for n, r in members]
        responses = [Response(p.id, 0, "m", r["text"]) for p, (_, r) in zip(prompts, members, strict=True)]
        values = score(to_table(prompts), to_table(responses), scorer).table["value"].to_pylist()
        for value, (_, row) in zip(values, members, strict=True):
            if value != pytest.approx(row["expected"], abs=1e-3):
                found.append(f"{row['case']}: {row['text']!r} got {value}, want {row['expected']}")
    return len(rows), found


@pytest.mark.parametrize(("name", "least"), [("answer_cases.jsonl", 156), ("answer_neighbors.jsonl", 400)])
def test_answers_get_the_value_that_a_careful_reader_gives(name, least):
    total, found = wrong(name)
    assert total >= least
    assert not found, "\n".join(found)


def test_the_lab_reads_what_follows_the_thoughts():
    from w2s_align.lab import problems

    (prompt,) = problems("lab/addition", 1, seed=0, split="test")
    texts = [f"<think>1</think>{prompt.answer}", f"<think>0\n{prompt.answer}", f"<think>{prompt.answer}</think>0"]
    responses = [Response(prompt.id, number, "m", text) for number, text in enumerate(texts)]
    assert score(to_table([prompt]), to_table(responses), "lab").table["value"].to_pylist() == [1.0, 0.0, 0.0]


def test_filters_read_what_follows_the_thoughts():
    pl = pytest.importorskip("polars")
    from w2s_align.pairing.quality import answer_texts, flag_texts
    from w2s_align.pairing.settings import Filters

    texts = pl.Series(["<think>a</think>I cannot help.", "<think>I cannot", "plain", None, "我不知道。" * 50])
    assert answer_texts(texts).to_list() == ["I cannot help.", "", "plain", None, "我不知道。" * 50]
    flags = flag_texts(texts, Filters(refusal=True, repetition=True)).to_list()
    assert flags == ["refusal", None, None, None, "repetition"]


def test_drop_has_the_values_of_the_official_function():
    """The values are those of lm-eval 0.4.13's ``drop``, which is the official function and rounds to two digits."""
    rows = [json.loads(line) for line in (HERE / "drop_pairs.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(rows) == 100
    for row in rows:
        found = max(overlap(row["answer"], accepted) for accepted in row["accepted"])
        assert found == pytest.approx(row["official"], abs=0.005001), row
