"""Let a model judge responses: ratings, True or False, wrong steps, or two side by side in both orders.

Reads prompts and responses, asks through :func:`w2s_align.generation.generate` (any engine; progress survives a kill
in ``out``), and returns every verdict by itself, the scores made of them, and how reliable they are: ties, flips, and
answers that could not be read. A verdict that cannot be read counts for nobody.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import pyarrow as pa

from w2s_align.errors import UserError
from w2s_align.generation import Engine, EngineCache, EngineResources, Generation, Sampling, generate, request_seed
from w2s_align.records import Prompt, Response, to_table
from w2s_align.scoring.judge_prompts import (
    COMPARING,
    JudgeSettings,
    as_text,
    fill,
    read_choice,
    read_rating,
    read_steps,
    read_verdict,
)
from w2s_align.scoring.judge_scores import SAME_TEXT, VERDICTS, Reliability, reliability_of, scores_of
from w2s_align.scoring.scorer import Outcome
from w2s_align.scoring.scorers.logprob import LogprobScorer
from w2s_align.scoring.table import Progress, Scores, check_columns, score
from w2s_align.scoring.thoughts import answer_part

DEFAULT_SAMPLING = Sampling(temperature=0, max_tokens=512)
"""Greedy, one verdict per question, as in Weaver (arXiv 2506.18203), with room for some sentences of reasons."""
LARGEST = 700.0
"""Largest exponent of a double: a probability below its inverse is 0 in any case."""


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
    if settings.mode in COMPARING:
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
            fix="A pairwise judge needs two responses to a prompt." if settings.mode in COMPARING else "",
        )
    generation = None
    if asked and settings.mode == "logprob":
        verdicts = _preferences(questions, responses, first_preferred(model, asked, engine or Engine(), out, progress))
        scores = scores_of(verdicts, responses, reasons, settings, f"judge:{name}")
        return Judged(verdicts, scores, reliability_of(verdicts, settings), None)
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
    texts: list[str | None],
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
        if settings.mode not in COMPARING:
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


def first_preferred(
    model: str | Path, asked: dict[str, Prompt], engine: Engine, out: Path | None, progress: Progress | None
) -> dict[str, float]:
    """Return for each prompt of a judge the probability of A among A and B, from their log-probabilities.

    Both are scored as whole answers, the end of the turn included, with the model's own chat template. A prompt that
    is too long for the model has none.

    Args:
        model: The judge.
        asked: Its prompts by id.
        engine: ``revision``, ``dtype`` and ``max_model_len`` are used.
        out: Folder in which finished batches are kept.
        progress: Called with the answers scored, all answers, and a note.
    """
    letters = ("A", "B")
    answers = [Response(prompt_id, i, "judge", letter) for prompt_id in asked for i, letter in enumerate(letters)]
    scorer = LogprobScorer(
        model=str(model), revision=engine.revision, dtype=engine.dtype, max_length=engine.max_model_len
    )
    scored = score(to_table(asked.values()), to_table(answers), scorer, progress, out)
    rows = zip(*(scored.table[column].to_pylist() for column in ("prompt_id", "sample", "value")), strict=True)
    values = {(prompt_id, sample): value for prompt_id, sample, value in rows if value is not None}
    return {
        prompt_id: 1 / (1 + math.exp(min(values[prompt_id, 1] - values[prompt_id, 0], LARGEST)))
        for prompt_id in asked
        if (prompt_id, 0) in values and (prompt_id, 1) in values
    }


def _preferences(questions: list[Question], responses: pa.Table, preferred: dict[str, float]) -> pa.Table:
    """Return one row of :data:`VERDICTS` for each question: the probability of the response that it is about."""
    rows = []
    for question in questions:
        first = 0.5 if question.prompt is None else preferred.get(question.prompt)
        value = first if first is None or question.shown != "second" else 1 - first
        if value is None:
            verdict = "the judge's prompt is too long"
        elif question.prompt is None:
            verdict = SAME_TEXT
        else:
            verdict = "win" if value > 0.5 else "loss" if value < 0.5 else "tie"
        rows.append((question, 0, verdict, value, None))
    return _table(rows, responses)


def _verdicts(
    questions: list[Question], responses: pa.Table, generation: Generation | None, settings: JudgeSettings, draws: int
) -> pa.Table:
    """Read the judge's answers: one row of :data:`VERDICTS` for each question and draw."""
    answers: dict[tuple[str, int], dict[str, Any]] = {}
    if generation is not None:
        for batch in generation.batches():
            for row in batch.select(["prompt_id", "sample", "text", "finish_reason"]).to_pylist():
                answers[row["prompt_id"], row["sample"]] = row
    rows = [
        (question, draw, *_read(question, answers, settings, draw))
        for question in questions
        for draw in range(draws if question.prompt is not None else 1)
    ]
    return _table(rows, responses)


def _table(rows: Sequence[tuple[Question, int, str, float | None, str | None]], responses: pa.Table) -> pa.Table:
    """Return rows of :data:`VERDICTS`, given question, draw, verdict, value and text of each."""
    ids, models, samples = (responses[name].to_pylist() for name in ("prompt_id", "model", "sample"))
    columns: dict[str, list[Any]] = {name: [] for name in VERDICTS.names}
    for question, draw, verdict, value, text in rows:
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
    elif settings.mode == "steps":
        counted = read_steps(text)
        value = None if counted is None else 1 - counted[0] / counted[1]
    else:
        value = read_verdict(text) if settings.mode == "verdict" else read_choice(text)
    if value is None:
        cut = answer["finish_reason"] == "length"
        return "cut before the verdict" if cut else "unparsable", None, text
    if settings.mode in ("pointwise", "steps"):
        return "rated", value, text
    if settings.mode == "verdict":
        return "right" if value else "wrong", value, text
    if question.shown == "second":
        value = 1 - value
    return {1.0: "win", 0.5: "tie", 0.0: "loss"}[value], value, text
