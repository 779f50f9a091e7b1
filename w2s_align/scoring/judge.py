"""Let a model judge responses: ratings, True or False, or two side by side in both orders.

Reads prompts and responses, asks through :func:`w2s_align.generation.generate` (any engine; progress survives a kill
in ``out``), and returns every verdict by itself, the scores made of them, and how reliable they are: ties, flips, and
answers that could not be read. A verdict that cannot be read counts for nobody.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineCache, EngineResources, Generation, Sampling, generate, request_seed
from w2s_align.records import Prompt, to_table
from w2s_align.scoring.judge_prompts import (
    JudgeSettings,
    as_text,
    fill,
    read_choice,
    read_rating,
    read_verdict,
)
from w2s_align.scoring.judge_scores import SAME_TEXT, VERDICTS, Reliability, reliability_of, scores_of
from w2s_align.scoring.scorer import Outcome
from w2s_align.scoring.table import Progress, Scores, check_columns
from w2s_align.scoring.thoughts import answer_part

if TYPE_CHECKING:
    from collections.abc import Sequence

DEFAULT_SAMPLING = Sampling(temperature=0, max_tokens=512)
"""Greedy, one verdict per question, as in Weaver (arXiv 2506.18203), with room for some sentences of reasons."""


@dataclass(frozen=True)
class Judged:
    """The result of :func:`judge`.

    Attributes:
        verdicts: Rows of :data:`~w2s_align.scoring.judge_scores.VERDICTS`: every answer of the judge.
        scores: One score per response, see :func:`~w2s_align.scoring.judge_scores.scores_of`.
        reliability: How much of it can be trusted: unreadable answers, ties, flips, model strengths.
        generation: The judge's own answers, with tokens and seconds; None when there was nothing to ask.
    """

    verdicts: pa.Table
    scores: Scores
    reliability: Reliability
    generation: Generation | None


@dataclass(frozen=True)
class Question:
    """One thing to ask: about a response, or about a response beside another one of the same prompt.

    Attributes:
        about: Row of the response.
        other: Row of the other response; None when it is judged by itself.
        shown: Whether the response stands ``first`` or ``second``; None when it is judged by itself, or when nothing
            is asked because both are the same text.
        aspect: What is rated.
        prompt: Id of the judge's prompt; None when nothing is asked.
    """

    about: int
    other: int | None
    shown: str | None
    aspect: str
    prompt: str | None


def judge(
    model: str | Path,
    prompts: pa.Table,
    responses: pa.Table,
    settings: JudgeSettings,
    *,
    sampling: Sampling = DEFAULT_SAMPLING,
    out: Path | None = None,
    model_name: str | None = None,
    seed: int = 0,
    engine: Engine | None = None,
    resources: EngineResources | None = None,
    engines: EngineCache | None = None,
    progress: Progress | None = None,
) -> Judged:
    """Ask a model about responses: about what follows their thoughts.

    Args:
        model: The judge: a hub id, a folder, or a server's model name.
        prompts: Rows of :class:`w2s_align.records.Prompt`; gold answers are not read.
        responses: Rows of :class:`w2s_align.records.Response`, of one model or several.
        settings: What is asked.
        sampling: How the judge's tokens are drawn; with ``n`` above 1 each question is asked that often.
        out: Folder in which finished answers are kept; the same call goes on from them.
        model_name: What names the judge in scores, as ``judge:<name>``.
        seed: Seed of the judge's samples, and of the pairs that ``max_comparisons`` picks.
        engine: What runs the judge; see :func:`~w2s_align.generation.generate`, as for the next three.
        resources: What the engine may use of the machine.
        engines: Engines that are open already.
        progress: Called with the questions answered, all questions, and a note.

    Raises:
        UserError: Options do not fit together, there is nothing to judge, or the judge cannot be asked.
    """
    settings.refuse_contradictions()
    check_columns(prompts, "prompts", ("id", "messages"))
    check_columns(responses, "responses", ("prompt_id", "sample", "model", "text", "finish_reason"))
    name = model_name or str(model)
    texts = [None if text is None else answer_part(text) for text in responses["text"].to_pylist()]
    reasons = _unusable(prompts, responses)
    usable = [row for row, reason in enumerate(reasons) if not reason]
    groups: dict[str, list[int]] = {}
    for row, prompt_id in zip(
        usable, responses["prompt_id"].take(pa.array(usable, pa.int64())).to_pylist(), strict=True
    ):
        groups.setdefault(prompt_id, []).append(row)
    if settings.mode == "pairwise":
        for rows in groups.values():
            if len(rows) == 1:
                reasons[rows[0]] = "only one response"
    asked: dict[str, Prompt] = {}
    questions = list(_questions(prompts, responses, groups, texts, settings, seed, asked))
    if not questions:
        counts = ", ".join(f"{n} {reason}" for reason, n in Counter(reason for reason in reasons if reason).items())
        raise UserError(
            "There is nothing to judge.",
            why=f"Of {responses.num_rows} responses: {counts}." if counts else "There are no responses.",
            fix="A pairwise judge needs two responses to a prompt." if settings.mode == "pairwise" else "",
        )
    generation = None
    if asked:
        generation = generate(
            model,
            to_table(asked.values()),
            sampling,
            out=out,
            model_name=name,
            seed=seed,
            engine=engine,
            resources=resources,
            engines=engines,
            progress=progress,
        )
    verdicts = _verdicts(questions, responses, generation, settings, sampling.n)
    scores = scores_of(verdicts, responses, reasons, settings, f"judge:{name}")
    return Judged(verdicts, scores, reliability_of(verdicts, settings), generation)


def _unusable(prompts: pa.Table, responses: pa.Table) -> list[str]:
    """Return for each response why it cannot be judged, or ""."""
    known = set(prompts["id"].to_pylist())
    seen: set[tuple[str, str, int]] = set()
    reasons = []
    columns = ("prompt_id", "model", "sample", "text", "finish_reason")
    for prompt_id, model, sample, text, finish in zip(*(responses[c].to_pylist() for c in columns), strict=True):
        reason: str = ""
        if prompt_id not in known:
            reason = Outcome.NO_PROMPT
        elif text is None or finish == "error":
            reason = Outcome.NO_RESPONSE
        elif (prompt_id, model, sample) in seen:
            reason = "duplicate"
        seen.add((prompt_id, model, sample))
        reasons.append(reason)
    return reasons


def _questions(
    prompts: pa.Table,
    responses: pa.Table,
    groups: dict[str, list[int]],
    texts: list[str],
    settings: JudgeSettings,
    seed: int,
    asked: dict[str, Prompt],
) -> Iterator[Question]:
    """Yield all questions, and put what the judge must be asked for them into ``asked``, each text once."""
    names = list(zip(responses["model"].to_pylist(), responses["sample"].to_pylist(), strict=True))

    def ask(**values: object) -> str:
        prompt = Prompt.of(fill(settings.text, values))
        asked.setdefault(prompt.id, prompt)
        return prompt.id

    for prompt_id, messages in zip(prompts["id"].to_pylist(), prompts["messages"].to_pylist(), strict=True):
        rows = sorted(groups.pop(prompt_id, []), key=names.__getitem__)  # the order of the input does not matter
        shared = {"prompt": as_text(messages)}
        if settings.mode != "pairwise":
            scale = {"low": settings.scale[0], "high": settings.scale[1]}
            for row in rows:
                for aspect in settings.aspects if settings.mode == "pointwise" else [""]:
                    yield Question(row, None, None, aspect, ask(**shared, **scale, response=texts[row], aspect=aspect))
            continue
        for left, right in chosen_pairs(rows, settings.max_comparisons, request_seed(seed, prompt_id, 0)):
            if texts[left] == texts[right]:
                yield Question(left, right, None, "", None)
                continue
            for shown, first, second in (("first", left, right), ("second", right, left)):
                yield Question(left, right, shown, "", ask(**shared, first=texts[first], second=texts[second]))


def chosen_pairs(rows: Sequence[int], limit: int | None, seed: int) -> list[tuple[int, int]]:
    """Return which pairs of rows are compared: all, or ``limit`` of them such that all take part as evenly as can be.

    The rows are put on a circle in an order drawn with the seed; neighbours are compared first, so that from
    ``len(rows) - 1`` comparisons on every row is connected with every other.

    Args:
        rows: The responses of one prompt.
        limit: Most pairs; None for all.
        seed: Seed of the order.
    """
    pairs = list(combinations(rows, 2))
    if limit is None or limit >= len(pairs):
        return pairs
    import random

    place = {row: i for i, row in enumerate(random.Random(seed).sample(list(rows), len(rows)))}

    def distance(pair: tuple[int, int]) -> tuple[int, int]:
        low, high = sorted((place[pair[0]], place[pair[1]]))
        forward, backward = high - low, len(rows) - (high - low)
        return (forward, low) if forward <= backward else (backward, high)

    return sorted(sorted(pairs, key=distance)[:limit], key=pairs.index)


def _verdicts(
    questions: list[Question], responses: pa.Table, generation: Generation | None, settings: JudgeSettings, draws: int
) -> pa.Table:
    """Read the judge's answers: one row of :data:`VERDICTS` for each question and draw."""
    answers: dict[tuple[str, int], dict[str, Any]] = {}
    if generation is not None:
        for batch in generation.batches():
            for row in batch.select(["prompt_id", "sample", "text", "finish_reason"]).to_pylist():
                answers[row["prompt_id"], row["sample"]] = row
    ids, models, samples = (responses[name].to_pylist() for name in ("prompt_id", "model", "sample"))
    columns: dict[str, list[Any]] = {name: [] for name in VERDICTS.names}
    for question in questions:
        for draw in range(draws if question.prompt is not None else 1):
            verdict, value, text = _read(question, answers, settings, draw)
            other = question.other
            row = (
                ids[question.about],
                models[question.about],
                samples[question.about],
                None if other is None else models[other],
                None if other is None else samples[other],
                question.shown,
                question.aspect,
                draw,
                verdict,
                value,
                text,
            )
            for column, cell in zip(columns.values(), row, strict=True):
                column.append(cell)
    return pa.table(columns, schema=VERDICTS)


def _read(
    question: Question, answers: dict[tuple[str, int], dict[str, Any]], settings: JudgeSettings, draw: int
) -> tuple[str, float | None, str | None]:
    """Return verdict, value and text of one answer; the value is from the side of the response in question."""
    if question.prompt is None:
        return SAME_TEXT, 0.5, None
    answer = answers.get((question.prompt, draw))
    if answer is None:
        return "the judge's prompt is too long", None, None
    text = answer["text"]
    if text is None:
        return "the judge failed", None, None
    if settings.mode == "pointwise":
        value = read_rating(text, settings.scale)
    else:
        value = read_verdict(text) if settings.mode == "verdict" else read_choice(text)
    if value is None:
        cut = answer["finish_reason"] == "length"
        return "cut before the verdict" if cut else "unparsable", None, text
    if settings.mode == "pointwise":
        return "rated", value, text
    if settings.mode == "verdict":
        return "right" if value else "wrong", value, text
    if question.shown == "second":
        value = 1 - value
    return {1.0: "win", 0.5: "tie", 0.0: "loss"}[value], value, text
