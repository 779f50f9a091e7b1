"""Measure pairing at the size of real data sets: seconds, peak memory, the ratio to the same job done row by row.

    python scripts/bench_pairing.py                     # everything, at full size
    python scripts/bench_pairing.py pairs --rows 100000 # one part, smaller

Each part makes its data as Parquet files in one process and is measured in another, so that the peak memory is that of
reading the files and doing the work. Parts: pairs, best_worst, panel, duplicates, leaks, math.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from w2s_align.pairing import Filters
from w2s_align.pairing.assemble import assistant_turns
from w2s_align.pairing.quality import PARAGRAPHS, RUN, SENTENCES, SPECIAL_TOKENS
from w2s_align.pairing.refusals import REFUSALS
from w2s_align.records import Prompt, Response, Score

FULL = {
    **{"pairs": 1_000_000, "best_worst": 200_000, "panel": 1_000_000},
    **{"duplicates": 1_000_000, "leaks": 1_000_000, "math": 100_000},
}
BASELINE_ROWS = 100_000
CHEAP = Filters(refusal=True, repetition=True, script="latin", max_length_gap=250, length_unit="chars")
"""Every filter that looks at one response or at two numbers; on by default besides: truncated, special tokens,
identical, empty."""
LIMITS = {
    **{"pairs": (40, 3), "best_worst": (30, None), "panel": (60, 3)},
    **{"duplicates": (600, 4), "leaks": (600, 4), "math": (None, None)},
}
SCORERS = 30
"""Scorers of the panel."""


class Texts:
    """Random prose, cut from one long text so that making it costs nothing."""

    def __init__(self, seed: int) -> None:
        self.draw = np.random.default_rng(seed)
        weights = 1 / np.arange(1, 20_001)
        words = np.array([f"w{i}" for i in range(20_000)], dtype=object)
        prose = self.draw.choice(words, 3_000_000, p=weights / weights.sum())
        prose[self.draw.random(len(prose)) < 0.08] += "."  # sentences of a dozen words
        self.prose = " ".join(prose)

    def take(self, n: int, chars: float) -> pa.Array:
        """Return ``n`` texts of about so many characters."""
        starts = self.draw.integers(0, len(self.prose) - 5000, n)
        lengths = np.clip(self.draw.normal(chars, chars / 4, n), 20, 4 * chars).astype(int)
        return pa.array([self.prose[a : a + b] for a, b in zip(starts, lengths, strict=True)])


def independent_texts(n: int, words: int, draw: np.random.Generator) -> list[str]:
    """Return ``n`` texts of words drawn by Zipf's law, each on its own: no two share a passage."""
    weights = np.cumsum(1 / np.arange(1, 50_001))
    names = np.array([f"w{i}" for i in range(50_000)], dtype=object)
    texts: list[str] = []
    for start in range(0, n, 50_000):
        rows = min(50_000, n - start)
        index = np.searchsorted(weights, draw.random((rows, words)) * weights[-1])
        texts += [" ".join(row) for row in names[index]]
    return texts


def ids(n: int) -> pa.Array:
    return pa.array([f"{i:016x}" for i in range(n)])


def constant(value: object, n: int, kind: pa.DataType) -> pa.Array:
    return pa.repeat(pa.scalar(value, kind), n)


def prompt_table(texts: pa.Array, answers: pa.Array | None = None) -> pa.Table:
    n = len(texts)
    chats = assistant_turns(texts)
    turns = pa.StructArray.from_arrays(
        [constant("user", n, pa.string()), chats.values.field("content")], ["role", "content"]
    )
    columns = {
        "id": ids(n),
        "messages": pa.ListArray.from_arrays(chats.offsets, turns),
        "answer": answers if answers is not None else pa.nulls(n, pa.string()),
        "task": constant("bench", n, pa.string()),
        "group": pa.nulls(n, pa.string()),
        "meta": constant("{}", n, pa.string()),
    }
    return pa.table(columns, schema=Prompt.SCHEMA)


def response_table(
    prompt_ids: pa.Array, texts: pa.Array, model: str, samples: np.ndarray, draw: np.random.Generator
) -> pa.Table:
    n = len(texts)
    columns = {name: pa.nulls(n, Response.SCHEMA.field(name).type) for name in Response.SCHEMA.names}
    columns |= {"prompt_id": prompt_ids, "text": texts, "model": constant(model, n, pa.string())}
    columns["sample"] = pa.array(samples.astype(np.int32))
    columns["finish_reason"] = pa.array(np.where(draw.random(n) < 0.02, "length", "stop"))
    columns["completion_tokens"] = pa.array((draw.random(n) * 200).astype(np.int32))
    return pa.table(columns, schema=Response.SCHEMA)


def make_pairs(folder: Path, n: int) -> None:
    texts = Texts(0)
    pq.write_table(prompt_table(texts.take(n, 100)), folder / "prompts.parquet")
    for model, chars in (("weak", 310), ("weaker", 290)):
        order = pa.array(texts.draw.permutation(n))
        table = response_table(ids(n).take(order), texts.take(n, chars), model, np.zeros(n), texts.draw)
        pq.write_table(table, folder / f"{model}.parquet")


def run_pairs(folder: Path) -> dict[str, object]:
    from w2s_align.pairing import model_order

    tables = [pq.read_table(folder / f"{name}.parquet") for name in ("weak", "weaker", "prompts")]
    start = time.perf_counter()
    pairs = model_order(*tables, filters=CHEAP)
    audit = pairs.audit()
    return {
        "seconds": time.perf_counter() - start,
        "pairs": pairs.table.num_rows,
        "auc": audit.lengths["chars"]["auc"],
    }


def run_pairs_baseline(folder: Path) -> dict[str, object]:
    """Do the same job the usual way: a Python function per row under ``datasets.map`` and ``filter``."""
    import re
    import unicodedata
    from collections import Counter
    from itertools import groupby

    from datasets import Dataset, disable_caching

    disable_caching()
    files = {name: str(folder / f"{name}.parquet") for name in ("weak", "weaker", "prompts")}
    data = {name: Dataset.from_parquet(path, cache_dir=str(folder / "cache")) for name, path in files.items()}
    start = time.perf_counter()
    by_prompt = {name: {row["prompt_id"]: row for row in data[name]} for name in ("weak", "weaker")}
    lost: dict[str, int] = {}

    special, refusals = re.compile(SPECIAL_TOKENS), [re.compile(pattern) for pattern in REFUSALS]

    def norm(text: str) -> str:
        return " ".join(unicodedata.normalize("NFKC", text).lower().split())

    def is_special(text: str) -> bool:
        bare = text.strip()
        return bool(special.search(text)) or bare.startswith("<s>") or bare.endswith("</s>")

    def is_foreign(text: str) -> bool:
        letters = [] if text.isascii() else [char for char in text if char.isalpha()]
        other = sum(not unicodedata.name(char, "").startswith("LATIN") for char in letters)
        return bool(letters) and other >= 0.05 * len(letters)

    def repeats(text: str) -> bool:
        pieces = [piece.strip() for piece in re.split(r"(?<=[.!?])\s|\n", text)]
        pieces = [piece for piece in pieces if piece]
        parts = Counter(part.strip() for part in text.split("\n\n") if part.strip())
        return (
            any(len(list(group)) >= RUN for _, group in groupby(pieces))
            or any(n >= SENTENCES for n in Counter(pieces).values())
            or any(n >= PARAGRAPHS for n in parts.values())
        )

    def make(row: dict) -> dict:
        chosen, rejected = by_prompt["weak"].get(row["id"]), by_prompt["weaker"].get(row["id"])
        reason = ""
        if chosen is None or rejected is None:
            reason = "no response"
        elif chosen["text"] is None or rejected["text"] is None:
            reason = "failed"
        elif not chosen["text"].strip() or not rejected["text"].strip():
            reason = "empty"
        elif "length" in (chosen["finish_reason"], rejected["finish_reason"]):
            reason = "truncated"
        elif any(is_special(side["text"]) for side in (chosen, rejected)):
            reason = "special tokens"
        elif any(
            any(pattern.search(side["text"][:200].replace("\u2019", "'")) for pattern in refusals)
            for side in (chosen, rejected)
        ):
            reason = "refusal"
        elif any(is_foreign(side["text"]) for side in (chosen, rejected)):
            reason = "wrong script"
        elif any(repeats(side["text"]) for side in (chosen, rejected)):
            reason = "repetition"
        elif norm(chosen["text"]) == norm(rejected["text"]):
            reason = "identical"
        elif abs(len(chosen["text"]) - len(rejected["text"])) > 250:
            reason = "length gap"
        if reason:
            lost[reason] = lost.get(reason, 0) + 1
        return {
            "prompt": row["messages"],
            "chosen": [{"role": "assistant", "content": chosen["text"] if chosen else None}],
            "rejected": [{"role": "assistant", "content": rejected["text"] if rejected else None}],
            "reason": reason,
        }

    made = data["prompts"].map(make).filter(lambda row: not row["reason"])
    gaps = [len(row["chosen"][0]["content"]) - len(row["rejected"][0]["content"]) for row in made]
    sum(gap > 0 for gap in gaps)
    return {"seconds": time.perf_counter() - start, "pairs": len(made)}


def make_best_worst(folder: Path, n: int) -> None:
    texts = Texts(1)
    pq.write_table(prompt_table(texts.take(n, 100)), folder / "prompts.parquet")
    prompt_ids = ids(n).take(pa.array(np.repeat(np.arange(n), 8)))
    samples = np.tile(np.arange(8), n)
    responses = response_table(prompt_ids, texts.take(8 * n, 300), "m", samples, texts.draw)
    pq.write_table(responses, folder / "responses.parquet")
    parts = []
    for scorer in ("reward", "length"):
        columns = {name: responses[name] for name in ("prompt_id", "sample", "model")}
        columns |= {"scorer": constant(scorer, 8 * n, pa.string()), "detail": constant("", 8 * n, pa.string())}
        columns["value"] = pa.array(texts.draw.integers(0, 20, 8 * n).astype(float))
        parts.append(pa.table(columns).select(Score.SCHEMA.names).cast(Score.SCHEMA))
    pq.write_table(pa.concat_tables(parts), folder / "scores.parquet")


def run_best_worst(folder: Path) -> dict[str, object]:
    from w2s_align.pairing import best_worst

    tables = [pq.read_table(folder / f"{name}.parquet") for name in ("responses", "scores", "prompts")]
    start = time.perf_counter()
    pairs = best_worst(*tables, scorer="reward", margin=1.0)
    pairs.audit()
    return {"seconds": time.perf_counter() - start, "pairs": pairs.table.num_rows}


def make_panel(folder: Path, n: int) -> None:
    """Make responses, eight to a prompt, and thirty scorers: 20 verdicts and 10 scores, some missing."""
    texts = Texts(4)
    draw, prompts = texts.draw, max(n // 8, 1)
    pq.write_table(prompt_table(texts.take(prompts, 100)), folder / "prompts.parquet")
    number = np.minimum(np.arange(n) // 8, prompts - 1)
    prompt_ids = ids(prompts).take(pa.array(number))
    samples = np.arange(n) - np.searchsorted(number, number)
    responses = response_table(prompt_ids, texts.take(n, 60), "m", samples, draw)
    pq.write_table(responses, folder / "responses.parquet")
    right = draw.random(n) < 0.4
    np.save(folder / "right.npy", right)
    for scorer in range(SCORERS):
        positive, negative = draw.uniform(0.55, 0.85, 2)
        if scorer < 20:
            values = (draw.random(n) < np.where(right, positive, 1 - negative)).astype(float)
        else:
            values = draw.normal(right * 2 * (positive - 0.5), 1)
        columns = {name: responses[name] for name in ("prompt_id", "sample", "model")}
        columns |= {"scorer": constant(f"v{scorer:02d}", n, pa.string()), "detail": constant("", n, pa.string())}
        columns["value"] = pa.array(values, mask=draw.random(n) < 0.01 * (scorer % 3))
        rest = {f.name: pa.nulls(n, f.type) for f in Score.SCHEMA if f.name not in columns}
        table = pa.table(columns | rest).select(Score.SCHEMA.names).cast(Score.SCHEMA)
        pq.write_table(table, folder / f"scores{scorer:02d}.parquet")


def run_panel(folder: Path) -> dict[str, object]:
    from w2s_align.pairing import posterior
    from w2s_align.scoring import combine

    start = time.perf_counter()
    tables = (pq.read_table(path) for path in sorted(folder.glob("scores*.parquet")))
    found = combine(tables, "label_model")
    seconds = time.perf_counter() - start
    values, right = found.table["value"].to_numpy(), np.load(folder / "right.npy")
    responses, prompts = (pq.read_table(folder / f"{name}.parquet") for name in ("responses", "prompts"))
    pairs = posterior(responses, found.table, prompts, least_preference=0.95)
    return {
        "seconds": time.perf_counter() - start,
        "label model": seconds,
        "accuracy": float(((values > 0.5) == right).mean()),
        "prior": found.panel.prior[0] if found.panel else None,
        "pairs": pairs.table.num_rows,
    }


def edit(text: str, draw: np.random.Generator, share: float) -> str:
    words = text.split(" ")
    return " ".join(f"x{draw.integers(9999)}" if draw.random() < share else word for word in words)


def make_duplicates(folder: Path, n: int) -> None:
    draw = np.random.default_rng(2)
    planted = n // 100
    base = independent_texts(n - planted, 80, draw)
    base += [edit(base[i], draw, 0.02) for i in range(planted)]
    pq.write_table(pa.table({"text": base}), folder / "texts.parquet")


def run_duplicates(folder: Path) -> dict[str, object]:
    from w2s_align.pairing import near_duplicates

    texts = pq.read_table(folder / "texts.parquet")["text"]
    start = time.perf_counter()
    found = near_duplicates(texts, threshold=0.7)
    seconds = time.perf_counter() - start
    planted = len(texts) // 100
    first = len(texts) - planted

    def grams(text: str) -> set[tuple[str, ...]]:
        words = text.split(" ")
        return {tuple(words[i : i + 3]) for i in range(len(words) - 2)}

    true = set()
    for i in range(planted):
        one, two = grams(texts[i].as_py()), grams(texts[first + i].as_py())
        if len(one & two) >= 0.7 * len(one | two):
            true.add(first + i)
    rows = set(found["row"].to_pylist())
    return {
        "seconds": seconds,
        "planted": len(true),
        "recall": len(true & rows) / len(true),
        "others": len(rows - true),
    }


def make_leaks(folder: Path, n: int) -> None:
    draw = np.random.default_rng(3)
    items = independent_texts(20_000, 60, draw)
    train = independent_texts(n, 80, draw)
    for i in range(1000):
        train[i * (n // 1000)] = f"{train[i][:60]} {edit(items[i], draw, 0.02)} {train[i][-40:]}"
    pq.write_table(pa.table({"text": train}), folder / "texts.parquet")
    pq.write_table(pa.table({"text": items}), folder / "items.parquet")


def run_leaks(folder: Path) -> dict[str, object]:
    from w2s_align.pairing import find_leaks

    texts = pq.read_table(folder / "texts.parquet")["text"]
    items = pq.read_table(folder / "items.parquet")["text"].to_pylist()
    start = time.perf_counter()
    leaks = find_leaks(texts, {"bench": items})
    seconds = time.perf_counter() - start
    step = len(texts) // 1000
    pairs = set(zip(leaks.table["row"].to_pylist(), leaks.table["item"].to_pylist(), strict=True))
    planted = {(i * step, i) for i in range(1000)}
    return {"seconds": seconds, "planted": 1000, "recall": len(planted & pairs) / 1000, "others": len(pairs - planted)}


def make_math(folder: Path, n: int) -> None:
    draw = np.random.default_rng(5)
    a, b = draw.integers(2, 99, n), draw.integers(2, 99, n)
    golds = [f"\\frac{{{x}}}{{{y}}}" for x, y in zip(a, b, strict=True)]
    texts = [f"So the result is \\boxed{{\\frac{{{2 * x}}}{{{2 * y}}}}}." for x, y in zip(a, b, strict=True)]
    texts[n // 2] = "\\boxed{9^{9^{9^{9}}}}"
    pq.write_table(prompt_table(pa.array([f"p{i}" for i in range(n)]), pa.array(golds)), folder / "prompts.parquet")
    pq.write_table(response_table(ids(n), pa.array(texts), "m", np.zeros(n), draw), folder / "responses.parquet")


def run_math(folder: Path) -> dict[str, object]:
    from w2s_align.scoring import score
    from w2s_align.scoring.scorers.library_checks import MathScorer

    prompts, responses = (pq.read_table(folder / f"{name}.parquet") for name in ("prompts", "responses"))
    found = {}
    for processes in (1, None):
        part = responses if processes is None else responses.slice(0, len(responses) // 10)
        start = time.perf_counter()
        result = score(prompts, part, MathScorer(timeout_s=10, processes=processes))
        name = "all cores" if processes is None else "one core"
        found[f"answers per second, {name}"] = len(part) / (time.perf_counter() - start)
        found["seconds"] = time.perf_counter() - start
    return {**found, "right": int(sum(result.table["value"].to_pylist()[:10])), "unscored": result.unscored}


def in_child(action: str, part: str, folder: Path, rows: int) -> dict[str, object]:
    """Make or run a part in a process of its own and return what it measured."""
    command = [sys.executable, __file__, part, "--action", action, "--folder", str(folder), "--rows", str(rows)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{action} {part} failed:\n{done.stderr}")
    measured: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return measured


def measure(part: str, rows: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        in_child("make", part, folder, rows)
        report = in_child("run", part, folder, rows)
    seconds, gigabytes = LIMITS[part]
    goals = [f"at most {seconds} s"] * bool(seconds) + [f"at most {gigabytes} GB"] * bool(gigabytes)
    goal = ", ".join(goals) or "both cores"
    print(f"{part}, {rows:,} rows: {json.dumps(report)}  (goal at full size: {goal})", flush=True)
    if part == "pairs":
        small = min(rows, BASELINE_ROWS)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            in_child("make", part, folder, small)
            ours, usual = in_child("run", part, folder, small), in_child("baseline", part, folder, small)
        if ours["pairs"] != usual["pairs"]:
            raise SystemExit(f"the baseline made {usual['pairs']} pairs and we made {ours['pairs']}")
        ratio = float(str(usual["seconds"])) / float(str(ours["seconds"]))
        times = f"ours {ours['seconds']:.2f} s, row by row {usual['seconds']:.2f} s"
        print(f"pairs, {small:,} rows: {times}: {ratio:.1f} times", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=[*FULL, "all"], default="all")
    parser.add_argument("--rows", type=int, help="rows instead of the full size")
    parser.add_argument(
        "--action", choices=["measure", "make", "run", "baseline"], default="measure", help=argparse.SUPPRESS
    )
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.action == "measure":
        for part in FULL if options.part == "all" else [options.part]:
            measure(part, options.rows or FULL[part])
        return
    if options.action == "make":
        globals()[f"make_{options.part}"](options.folder, options.rows)
        found: dict[str, object] = {}
    else:
        found = globals()[f"run_{options.part}" + ("_baseline" if options.action == "baseline" else "")](
            options.folder
        )
    used = resource.getrusage(resource.RUSAGE_SELF)
    # Processor seconds of the whole process, reading and imports included: they hardly depend on what else is running.
    found |= {"cpu_seconds": used.ru_utime + used.ru_stime, "peak_gb": used.ru_maxrss / 2**20}
    print(json.dumps({key: round(value, 4) if isinstance(value, float) else value for key, value in found.items()}))


if __name__ == "__main__":
    main()
