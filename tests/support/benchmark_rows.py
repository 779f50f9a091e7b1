"""Five rows of every shipped benchmark, written by us in the real format: files, columns and types as on the hub."""

# ruff: noqa: E501

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

FIVE = range(5)
_FUNCTION = (
    'from typing import List\n\n\ndef add{i}(a: int, b: int) -> int:\n    """ Add two numbers and {i}.\n    """\n'
)
_PLUS_HEAD = (
    "import numpy as np\n\n"
    "def is_floats(x) -> bool:\n    if isinstance(x, float):\n        return True\n"
    "    if isinstance(x, np.ndarray):\n        return x.dtype == np.float64 or x.dtype == np.float32\n    return False\n\n"
    "def assertion(out, exp, atol):\n    if atol == 0 and is_floats(exp):\n        atol = 1e-6\n"
    "    if out != exp and atol != 0:\n        assert np.allclose(out, exp, rtol=1e-07, atol=atol)\n"
    "    else:\n        assert out == exp, f'{out} {exp}'\n\n"
)


def _mmlu(i: int) -> dict[str, Any]:
    subject = "astronomy" if i % 2 else "anatomy"
    return {"question": f"Which is number {i}?", "subject": subject, "choices": list("wxyz"), "answer": i % 4}


def _bbh(config: str) -> list[dict[str, Any]]:
    return [{"input": f"{config} {i}: True and False", "target": "False"} for i in FIVE]


def _drop(i: int) -> dict[str, Any]:
    empty = {"number": "", "date": {"day": "", "month": "", "year": ""}, "spans": []}
    answers = [
        {"number": "7"},
        {"spans": ["the Bears", "the Lions"]},
        {"date": {"day": "3", "month": "May", "year": "1999"}},
    ]
    answer = {**empty, **answers[i % 3]}
    validated = {"number": ["", ""], "date": [empty["date"]] * 2, "spans": [["Bears"], []]}
    return {"passage": f"Passage {i}.", "question": "How many?", "answer": answer, "validated_answers": validated}


def _tqa(i: int) -> dict[str, Any]:
    targets = {"choices": [f"yes {i}", "no", "maybe"], "labels": [1, 0, 0]}
    return {"question": f"Is {i} a number?", "mc1_targets": targets, "mc2_targets": targets}


def _humaneval(i: int, head: str = "") -> dict[str, Any]:
    check = (
        f"def check(candidate):\n    for a, b in [(1, 2), (0, 0)]:\n        assertion(candidate(a, b), a + b + {i}, 0)\n"
        if head
        else f"\n\nMETADATA = {{}}\n\n\ndef check(candidate):\n    assert candidate(1, 2) == 3 + {i}\n"
    )
    return {
        "task_id": f"HumanEval/{i}",
        "prompt": _FUNCTION.format(i=i),
        "canonical_solution": f"    return a + b + {i}\n",
        "test": head + check,
        "entry_point": f"add{i}",
    }


def _ifeval(i: int) -> dict[str, Any]:
    return {
        "key": 1000 + i,
        "prompt": f"Write about {i} without commas.",
        "instruction_id_list": ["punctuation:no_comma"],
        "kwargs": [{}],
    }


ROWS: dict[str, dict[str, list[dict[str, Any]]]] = {
    "gsm8k": {
        f"openai/gsm8k/main/{split}-00000-of-00001.parquet": [
            {
                "question": f"Ann has {i} apples and buys 2 ({split}). How many?",
                "answer": f"{i} + 2 = <<{i}+2={i + 2}>>{i + 2}\n#### {i + 2}",
            }
            for i in FIVE
        ]
        for split in ("train", "test")
    },
    "math500": {
        "HuggingFaceH4/MATH-500/test.jsonl": [
            {
                "problem": f"What is $\\frac{{{i}}}{{3}}$?",
                "solution": "...",
                "answer": f"\\frac{{{i}}}{{3}}",
                "subject": "Algebra",
                "level": 1 + i,
                "unique_id": f"test/{i}",
            }
            for i in FIVE
        ]
    },
    "math": {
        f"EleutherAI/hendrycks_math/{config}/{split}-00000-of-00001.parquet": [
            {
                "problem": f"{config} {i} {split}: $1+{i}$?",
                "level": f"Level {1 + i}",
                "type": config,
                "solution": f"It is $\\boxed{{{1 + i}}}$.",
            }
            for i in FIVE
        ]
        for config in (
            "algebra",
            "counting_and_probability",
            "geometry",
            "intermediate_algebra",
            "number_theory",
            "prealgebra",
            "precalculus",
        )
        for split in ("train", "test")
    },
    "aime24": {
        "Maxwell-Jia/AIME_2024/aime_2024_problems.parquet": [
            {"ID": f"2024-I-{i}", "Problem": f"Find ${i}+1$.", "Solution": "...", "Answer": i + 1} for i in FIVE
        ]
    },
    "aime25": {
        "math-ai/aime25/test.jsonl": [{"problem": f"Find ${i}+2$.", "answer": str(i + 2), "id": str(i)} for i in FIVE]
    },
    "mmlu": {
        f"cais/mmlu/all/{split}-00000-of-00001.parquet": [{**_mmlu(i), "question": f"{split} {i}?"} for i in FIVE]
        for split in ("test", "dev")
    },
    "mmlu_pro": {
        f"TIGER-Lab/MMLU-Pro/data/{split}-00000-of-00001.parquet": [
            {
                "question_id": i,
                "question": f"{split} {i}?",
                "options": [f"option {k}" for k in range(10)],
                "answer": "ABCDEFGHIJ"[i],
                "answer_index": i,
                "cot_content": "",
                "category": "law",
                "src": "",
            }
            for i in FIVE
        ]
        for split in ("test", "validation")
    },
    "gpqa": {
        "Idavidrein/gpqa/gpqa_diamond.csv": [
            {
                "Question": f"Why {i}?",
                "Correct Answer": f"right {i}",
                "Incorrect Answer 1": "a",
                "Incorrect Answer 2": "b",
                "Incorrect Answer 3": "c",
                "High-level domain": "Physics",
            }
            for i in FIVE
        ]
    },
    **{
        name: {
            f"allenai/ai2_arc/{config}/{split}-00000-of-00001.parquet": [
                {
                    "id": f"q{i}",
                    "question": f"{split} {i}?",
                    "choices": {"text": ["p", "q", "r", "s"], "label": list("1234" if i == 0 else "ABCD")},
                    "answerKey": "2" if i == 0 else "C",
                }
                for i in FIVE
            ]
            for split in ("test", "train")
        }
        for name, config in (("arc_challenge", "ARC-Challenge"), ("arc_easy", "ARC-Easy"))
    },
    "drop": {
        f"EleutherAI/drop/data/{split}-00000-of-00001.parquet": [
            {**_drop(i), "passage": f"{split} {i}."} for i in FIVE
        ]
        for split in ("train", "validation")
    },
    "popqa": {
        "akariasai/PopQA/test.tsv": [
            {
                "id": i,
                "prop": "occupation",
                "obj": "politician",
                "question": f"What is Person {i}'s occupation?",
                "possible_answers": json.dumps(["politician", "political leader"]),
            }
            for i in FIVE
        ]
    },
    "truthfulqa": {
        "truthfulqa/truthful_qa/multiple_choice/validation-00000-of-00001.parquet": [_tqa(i) for i in FIVE]
    },
    "humaneval": {
        "openai/openai_humaneval/openai_humaneval/test-00000-of-00001.parquet": [_humaneval(i) for i in FIVE]
    },
    "humaneval_plus": {
        "evalplus/humanevalplus/data/test-00000-of-00001.parquet": [_humaneval(i, _PLUS_HEAD) for i in FIVE]
    },
    "mbpp": {
        f"google-research-datasets/mbpp/full/{split}-00000-of-00001.parquet": [
            {
                "task_id": i,
                "text": f"Write a function f{i} that adds {i} ({split}).",
                "code": f"def f{i}(x):\n    return x + {i}",
                "test_list": [f"assert f{i}(1) == {i + 1}"],
                "test_setup_code": "",
                "challenge_test_list": [],
            }
            for i in FIVE
        ]
        for split in ("test", "prompt")
    },
    "alpaca_eval": {
        "tatsu-lab/alpaca_eval/alpaca_eval_gpt4_baseline.json": [
            {
                "instruction": f"Tell me about number {i}.",
                "output": f"Number {i} is " + "very " * i + "fine.",
                "generator": "gpt4_1106_preview",
                "dataset": "helpful_base" if i % 2 else "koala",
                "datasplit": "eval",
            }
            for i in FIVE
        ]
    },
    "ifeval": {"google/IFEval/ifeval_input_data.jsonl": [_ifeval(i) for i in FIVE]},
}
"""By task: by file of the mirror folder, its rows."""


def write_mirror(folder: Path) -> Path:
    """Write all of it as a mirror of the hub and return the folder."""
    from w2s_align.evaluation.task import load_task

    rows = {**ROWS}
    rows["bbh"] = {
        f"SaylorTwift/bbh/{config}/test-00000-of-00001.parquet": _bbh(config)
        for config in load_task("bbh").data.configs
    }
    for files in rows.values():
        for name, lines in files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.suffix == ".parquet":
                pq.write_table(pa.Table.from_pylist(lines), path)
            elif path.suffix == ".json":
                path.write_text(json.dumps(lines))
            elif path.suffix == ".jsonl":
                path.write_text("".join(json.dumps(line) + "\n" for line in lines))
            else:
                with path.open("w", newline="") as file:
                    writer = csv.DictWriter(file, lines[0], delimiter="\t" if path.suffix == ".tsv" else ",")
                    writer.writeheader()
                    writer.writerows(lines)
    return folder
