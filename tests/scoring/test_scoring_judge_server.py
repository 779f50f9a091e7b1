"""A judge behind a server on the loopback address, with scripted verdicts: what orders, flips and failures become."""

import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pyarrow.parquet as pq
import pytest
from made_artifacts import artifact, run_step

from w2s_align.generation import Engine, EngineResources, Sampling
from w2s_align.pairing import judge as judge_pairs
from w2s_align.records import Prompt, Response, Score, to_table
from w2s_align.runs import recipe_from_text
from w2s_align.scoring import JudgeSettings, judge
from w2s_align.steps.meta_ranking import MetaRanking

CHAT = Engine(name="openai", api="chat")
GREEDY = Sampling(temperature=0, max_tokens=64)


class Judge(BaseHTTPRequestHandler):
    """Prefers the larger of the two numbers in the responses; how it behaves otherwise stands in the request."""

    protocol_version = "HTTP/1.1"
    asked: list[str] = []

    def do_GET(self):
        self.reply({"object": "list", "data": [{"id": "referee", "object": "model"}]})

    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        text = body["messages"][-1]["content"]
        if "worth" in text:  # and not the request that tries the server out
            self.asked.append(text)
        usage = {"prompt_tokens": len(text.split()), "completion_tokens": 3}
        choice = {"index": 0, "message": {"role": "assistant", "content": verdict(text)}, "finish_reason": "stop"}
        self.reply({"id": "1", "object": "chat.completion", "choices": [choice], "usage": usage})

    def reply(self, value):
        data = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, *arguments):
        pass


def verdict(text):
    if "worth" not in text:
        return "hello"
    request = text.split("[End of the request]")[0]
    first, second = (int(n) for n in re.findall(r"worth (\d+)", text))
    if "mute" in request:
        return "I cannot say."
    if "lazy" in request:
        return "The first one.\nVerdict: A"
    if "shy" in request and first < second:
        return "Verdict: tie"
    if first == second:
        return "Both are the same.\nVerdict: tie"
    return f"They are worth {first} and {second}.\nVerdict: {'A' if first > second else 'B'}"


@pytest.fixture
def server():
    Judge.asked = []
    with ThreadingHTTPServer(("127.0.0.1", 0), Judge) as made:
        thread = threading.Thread(target=made.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{made.server_address[1]}/v1"
        made.shutdown()
        thread.join()


REQUESTS = {"fair": "win", "unfair": "loss", "even": "tie", "lazy": "flip", "shy": "half tie", "mute": "unreadable"}
WORTH = {"fair": (5, 3), "unfair": (3, 5), "even": (4, 4), "lazy": (5, 3), "shy": (5, 3), "mute": (5, 3)}


def tables():
    prompts = [Prompt.of(f"{name} request") for name in REQUESTS]
    responses = [
        Response(prompt.id, 0, model, f"{model}: worth {WORTH[name][side]}")
        for prompt, name in zip(prompts, REQUESTS, strict=True)
        for side, model in enumerate(("left", "right"))
    ]
    return to_table(prompts), to_table(responses)


def test_orders_flips_ties_and_silence(server):
    prompts, responses = tables()
    judged = judge(
        "referee",
        prompts,
        responses,
        JudgeSettings(mode="pairwise"),
        sampling=GREEDY,
        engine=CHAT,
        resources=EngineResources(base_url=server),
    )
    assert len(Judge.asked) == 12 and sum("[Response A]\nleft" in text for text in Judge.asked) == 6
    assert judged.reliability.comparisons == {outcome: 1 for outcome in sorted(REQUESTS.values())}
    assert judged.reliability.verdicts == {"loss": 3, "tie": 3, "unparsable": 2, "win": 4}
    assert (judged.reliability.flip_rate, judged.reliability.consistency) == (1 / 5, 3 / 5)
    # decided: fair A B, unfair B A, lazy A A, shy A: the first slot won 2 of 2, 1 of 2, 1 of 2 and 1 of 1
    assert judged.reliability.first_slot == 5 / 7
    pairs = judge_pairs(responses, judged.verdicts, prompts)
    rows = [(r["prompt"][0]["content"], r["chosen_model"], r["rejected_model"]) for r in pairs.table.to_pylist()]
    assert rows == [("fair request", "left", "right"), ("unfair request", "right", "left")]
    assert pairs.counts.dropped["prompt"] == {
        "a tie": 1,
        "a tie in one order": 1,
        "the order of the two decided": 1,
        "unreadable verdict": 1,
    }
    strengths = judged.reliability.strengths
    assert strengths["left"] == pytest.approx(-strengths["right"]) and strengths["left"] > 0


@pytest.mark.slow
def test_a_recipe_with_a_judge_behind_a_server_makes_pairs(server, judge_model, other_model, tmp_path):
    rows = [{"prompt": f"fair {i}"} for i in range(3)]
    (tmp_path / "p.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    text = f"""\
name: served
steps:
  prompts: {{kind: prompts, source: {tmp_path}/p.jsonl}}
  one: &one {{kind: generate, model: {judge_model}, prompts: $prompts, sampling: {{temperature: 0, max_tokens: 4}},
             engine: {{name: transformers}}}}
  two: {{<<: *one, model: {other_model}}}
  duel:
    {{kind: judge, mode: pairwise, model: referee, responses: [$one, $two], engine: {{name: openai, api: chat}},
     resources: {{base_url: "{server}"}},
     template: "[Request]{{prompt}}[End of the request]{{first}} worth 5, {{second}} worth 5"}}
  rates: {{kind: score, responses: $one, scorer: "feature:chars"}}
"""
    run = recipe_from_text(text).run(tmp_path / "runs")
    verdicts = run.artifact("duel").table("verdicts")
    assert verdicts["verdict"].to_pylist() == ["tie"] * 6
    assert run.table("duel")["scorer"].to_pylist() == ["judge:referee"] * 6
    assert run.table("duel")["value"].to_pylist() == [0.0] * 6


def test_meta_ranking_asks_about_responses_to_other_prompts(server, tmp_path):
    prompts = [Prompt.of(f"offer {i}") for i in range(12)]
    responses = [Response(p.id, 0, "m", f"worth {i}") for i, p in enumerate(prompts)]
    responses[11] = Response(prompts[11].id, 0, "m", None, finish_reason="error", error="lost")
    gold = [Score(p.id, 0, "m", "exact", float(i >= 6)) for i, p in enumerate(prompts)]
    made = {
        "prompts": artifact(tmp_path / "prompts" / "key", "prompts", to_table(prompts)),
        "responses": artifact(tmp_path / "responses" / "key", "responses", to_table(responses)),
        "gold": artifact(tmp_path / "scores" / "key", "scores", to_table(gold)),
    }
    step = MetaRanking(
        model="referee",
        responses="$responses",
        known="$responses",
        gold="$gold",
        comparisons=4,
        calibration=6,
        engine=CHAT,
        resources={"base_url": server},
    )
    step.check()
    work = run_step(step, made, tmp_path / "out")
    rows = pq.read_table(tmp_path / "out/data/scores.parquet").to_pylist()
    assert {row["scorer"] for row in rows} == {"meta_ranking:referee"}
    assert rows[11]["value"] is None and work.counts["dropped"] == {"generation failed": 1}
    values = [row["value"] for row in rows[:11]]
    references = {prompts.index(p) for p in prompts if p.id in work.result["references"]}
    assert len(references) == 4 and sum(i >= 6 for i in references) == 2
    # The referee likes the larger number: the higher the worth, the more references it beats.
    assert values[10] > 0.5 > values[0] and values[10] > values[6] >= values[5] > values[0]
    assert work.result["calibration"]["count"] == 6 and work.result["unreadable"] < 0.1
    pairs = {tuple(map(int, re.findall(r"worth (\d+)", text))) for text in Judge.asked}
    assert all(first != second and {first, second} & references for first, second in pairs)
    assert all((second, first) in pairs for first, second in pairs)
