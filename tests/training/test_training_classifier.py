"""Training a classifier: heads, soft labels, thresholds over the effective batch, adapters, probes, a second stage."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from w2s_align.errors import UserError
from w2s_align.scoring.items import ItemReader
from w2s_align.training import ClassifierSettings, Lora, TrainResources, train
from w2s_align.training.models import open_start


def items(number: int, seed: int = 0, soft: bool = False):
    """Return digits that end in a or b; the class is which, the soft label is sure of it by .8."""
    dice = random.Random(seed)
    rows = []
    for place in range(number):
        kind = place % 2
        text = "".join(dice.choice("0123456789") for _ in range(dice.randrange(3, 9))) + "ab"[kind]
        row = {"prompt": [{"role": "user", "content": text}]}
        rows.append(row | ({"target": [0.8, 0.2][:: 1 - 2 * kind]} if soft else {"label": str(kind)}))
    dice.shuffle(rows)
    return rows


def settings(**changes):
    given = {"learning_rate": 1e-2, "batch_size": 16, "num_train_epochs": 4, "warmup_steps": 0}
    return ClassifierSettings.model_validate(given | changes)


def run(student, rows, out, micro=None, **changes):
    resources = TrainResources(device="cpu", micro_batch_size=micro)
    return train(student, rows, out, settings(**changes), resources=resources)


def losses(out):
    import json

    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def test_a_classifier_learns_its_items_and_says_what_its_outputs_mean(student, tmp_path):
    report = run(student, items(64), tmp_path / "out")
    model = AutoModelForSequenceClassification.from_pretrained(report.model_dir).eval()
    assert model.config.id2label == {0: "0", 1: "1"}
    assert model.config.w2s_items == ItemReader().config()
    start = open_start(student)
    fresh = items(40, seed=1)
    ids = ItemReader().ids(start.tokenizer, [row["prompt"] for row in fresh])
    with torch.no_grad():
        said = [int(model(input_ids=torch.tensor([row])).logits.argmax()) for row in ids]
    assert sum(str(one) == row["label"] for one, row in zip(said, fresh, strict=True)) >= 38
    rows = losses(tmp_path / "out")
    assert rows[0]["loss"] == pytest.approx(math.log(2), abs=1e-6)  # a zero head knows nothing
    assert rows[-1]["loss"] < 0.1 and rows[-1]["label_agreement"] == 1
    assert report.counts.by_class == {"0": 32, "1": 32}


def test_the_loss_of_soft_labels_ends_at_their_entropy(student, tmp_path):
    run(student, items(64, soft=True), tmp_path / "soft", num_train_epochs=8)
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert losses(tmp_path / "soft")[-1]["loss"] == pytest.approx(entropy, abs=0.02)
    run(student, items(64, soft=True), tmp_path / "kl", num_train_epochs=1, loss="kl")
    assert losses(tmp_path / "kl")[0]["loss"] == pytest.approx(math.log(2) - entropy, abs=1e-6)
    run(student, items(64, soft=True), tmp_path / "hard", hard_labels=True)
    assert losses(tmp_path / "hard")[-1]["loss"] < 0.1


@pytest.mark.parametrize("loss", ["logconf", "window"])
def test_micro_batches_change_nothing_also_where_a_threshold_is_over_the_batch(student, tmp_path, loss):
    more = {"alpha": 0.75, "alpha_warmup": 0} if loss == "logconf" else {"radius": 0.02}
    found = []
    for micro in (16, 1):
        out = tmp_path / str(micro)
        run(student, items(64, soft=True), out, micro=micro, loss=loss, learning_rate=1e-3, **more)
        found.append([(row["loss"], row["label_agreement"]) for row in losses(out)])
    assert np.allclose(*found, atol=1e-4) and len(found[0]) == 16
    assert np.ptp([value for value, _ in found[0]]) > 0.01


def test_a_linear_probe_moves_the_head_alone(student, tmp_path):
    report = run(student, items(64), tmp_path / "out", train_only="head")
    before = open_start(student).load().state_dict()
    after = load_file(f"{report.model_dir}/model.safetensors")
    moved = [name for name, weight in after.items() if name not in before or not torch.equal(weight, before[name])]
    assert moved == ["score.weight"] and not report.alarms
    assert report.preflight["trained_parameters"] == 2 * 32


def test_an_adapter_and_its_head_are_merged(student, tmp_path):
    report = run(student, items(64), tmp_path / "out", adapter=Lora(r=4, alpha=4), learning_rate=1e-2)
    model = AutoModelForSequenceClassification.from_pretrained(report.model_dir)
    assert model.config.id2label == {0: "0", 1: "1"} and model.score.weight.abs().sum() > 0
    assert report.verified["logit_error"] < 1e-4
    assert losses(tmp_path / "out")[-1]["loss"] < 0.3


def test_a_second_stage_goes_on_from_the_head_of_the_first(student, tmp_path):
    first = run(student, items(64), tmp_path / "first")
    run(first.model_dir, items(64, seed=2), tmp_path / "second", num_train_epochs=1)
    assert losses(tmp_path / "second")[0]["loss"] < 0.3  # not ln 2: the head is the first stage's
    with pytest.raises(UserError, match="is a classifier of 0, 1"):
        run(first.model_dir, items(64), tmp_path / "third", classes=["1", "0"])


def test_a_head_from_the_tokens_that_name_the_classes(student, tmp_path):
    run(student, items(32), tmp_path / "out", new_head="unembedding", num_train_epochs=1)
    start = open_start(student)
    lm = start.load()
    ids = ItemReader().ids(start.tokenizer, [row["prompt"] for row in items(32)])
    tokens = [start.tokenizer.convert_tokens_to_ids(name) for name in "01"]
    with torch.no_grad():
        logits = torch.stack([lm(input_ids=torch.tensor([row])).logits[0, -1, tokens] for row in ids])
    labels = torch.tensor([int(row["label"]) for row in items(32)])
    from w2s_align.training.methods.classifier import METHODS

    assert METHODS[0].head_for(settings()).labels == 2
    # the first batch holds half of the rows; both batches together at the start are the mean below
    first = losses(tmp_path / "out")[0]["loss"]
    each = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    assert each.min() <= first <= each.max() and abs(first - math.log(2)) > 1e-4


def test_held_out_items_are_measured_against_the_labels_that_are_given(student, tmp_path):
    report = run(student, items(80, soft=True), tmp_path / "out", held_out=16, evaluate_every=2, loss="logconf")
    entropy = -(0.8 * math.log(0.8) + 0.2 * math.log(0.2))
    assert [row["step"] for row in report.held_out][-1] == 16
    assert all(row["loss"] > entropy - 1e-3 for row in report.held_out)  # a cross entropy, also with logconf


def test_plain_texts_need_no_chat_template(tiny, tmp_path):
    model = tiny.model(tmp_path / "model", tiny.tokenizer(template=None))
    report = run(model, items(32), tmp_path / "out", template="plain", num_train_epochs=1)
    assert report.counts.kept == 32
    with pytest.raises(UserError, match="has no chat template"):
        run(model, items(32), tmp_path / "other")


def test_an_unfinished_turn_of_the_assistant_is_read_up_to_its_end(student):
    tokenizer = open_start(student).tokenizer
    chat = [{"role": "user", "content": "1+1"}, {"role": "assistant", "content": "="}]
    (ids,) = ItemReader().ids(tokenizer, [chat])
    assert "".join(tokenizer.convert_ids_to_tokens(ids)) == "<s><user>1+1<assistant>="


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"loss": "logconf", "batch_size": 4}, "batch_size 4 is too small for the threshold of logconf"),
        ({"loss": "window", "classes": ["a", "b", "c"]}, "threshold between two classes, and there are 3"),
        ({"classes": ["a", "a"]}, "not all different"),
        ({"too_long": "truncate"}, "where its class is read"),
        ({"train_only": "head", "adapter": {"r": 4}}, "trains no adapter"),
        ({"radius": 0.7}, "between 0 and 0.5"),
    ],
)
def test_settings_that_cannot_work_are_refused(changes, said):
    with pytest.raises(ValueError, match=said):
        settings(**changes)


def test_labels_that_fit_no_class_and_classes_without_items_are_refused(student, tmp_path):
    with pytest.raises(UserError, match="'1' is none of the classes 0, yes"):
        run(student, items(8), tmp_path / "a", classes=["0", "yes"])
    with pytest.raises(UserError, match="None of the 4 items is of the class 1"):
        run(student, [row for row in items(8) if row["label"] == "0"], tmp_path / "b")
    with pytest.raises(UserError, match="one probability for each of the classes"):
        run(student, [row | {"target": [0.5, 0.6]} for row in items(4, soft=True)], tmp_path / "c")
    rows = [row | {"target": [0.9, 0.1]} for row in items(16, soft=True)] + [items(1, soft=True)[0] | {"target": None}]
    report = run(student, rows, tmp_path / "d", num_train_epochs=1)
    assert report.counts.dropped == {"without_label": 1}
    assert any("No item is most probably of the class 1" in note for note in report.notes)


def test_options_without_effect_are_named():
    assert settings(alpha=0.3).advice() == ["alpha changes nothing with loss xent."]
    assert settings(loss="logconf", alpha=0.3).advice() == []
    every_field = settings().model_dump()  # as a step of a recipe gives them
    assert type(settings()).model_validate(every_field).advice() == []


def test_examples_stand_before_every_item_in_training_and_when_it_labels(student, tmp_path):
    rows = items(24, soft=True)
    report = run(student, rows, tmp_path / "out", shots=3, num_train_epochs=1, batch_size=8)
    assert report.counts.dropped == {"used_as_example": 3} and report.counts.kept == 21
    config = AutoModelForSequenceClassification.from_pretrained(report.model_dir).config
    tokenizer = open_start(student).tokenizer
    reader = ItemReader.of(config, tokenizer)
    shown = {example["text"]: example["label"] for example in reader.examples}
    hard = {row["prompt"][0]["content"]: str(int(row["target"][1] > 0.5)) for row in rows}
    assert len(shown) == 3 and shown.items() <= hard.items()
    read = [tokenizer.decode(ids) for ids in reader.ids(tokenizer, [row["prompt"] for row in rows])]
    texts = [text.split("<user>")[1].split("<assistant>")[0].split("\n\n") for text in read]
    assert all(set(parts[:3]) == {f"{text}\n{label}" for text, label in shown.items()} for parts in texts)
    assert len({tuple(parts[:3]) for parts in texts}) > 1  # the order is another one for other items
    assert reader.ids(tokenizer, [rows[0]["prompt"]]) == reader.ids(tokenizer, [rows[0]["prompt"]])
    longest = max(len(ids) for ids in reader.ids(tokenizer, [row["prompt"] for row in rows]))
    assert report.preview[0]["tokens"] > longest / 2


def test_examples_that_leave_no_room_are_refused(student, tmp_path):
    with pytest.raises(UserError, match="The 8 examples before an item take"):
        run(student, items(24), tmp_path / "a", shots=8, max_length=40)
    with pytest.raises(UserError, match="shots is 24, and there are 24 items"):
        run(student, items(24), tmp_path / "b", shots=24)
    with pytest.raises(ValueError, match="none of the classes"):
        settings(examples=[{"text": "a", "label": "2"}])


def test_held_out_items_are_measured_against_gold_answers_where_a_recipe_says_diagnostic(student, tmp_path):
    """Labels are the wrong way round: what is learned from them raises the loss against gold."""
    rows = []
    for row in items(48, soft=True):
        right = "0" if row["target"][0] > 0.5 else "1"
        rows.append({"prompt": row["prompt"], "target": row["target"][::-1], "label": right})
    chosen = {"held_out": 16, "evaluate_every": 2, "num_train_epochs": 8}
    weak = run(student, rows, tmp_path / "weak", **chosen)
    gold = run(student, rows, tmp_path / "gold", diagnostic=True, **chosen)
    first, last = (gold.held_out[place]["loss"] for place in (0, -1))
    assert weak.held_out[-1]["loss"] < weak.held_out[0]["loss"] and last > first + 0.5
    saved = [
        (folder / "model" / "model.safetensors").read_bytes() for folder in (tmp_path / "weak", tmp_path / "gold")
    ]
    assert saved[0] == saved[1]  # it is measured, not learned
    assert any("no label-free student" in note for note in gold.notes)
    unknown = [{**row, "label": None} if place < 4 else row for place, row in enumerate(rows)]
    report = run(student, unknown, tmp_path / "unknown", diagnostic=True, **{**chosen, "max_steps": 1})
    assert report.counts.dropped == {"without_gold_answer": 4}
    with pytest.raises(ValueError, match="diagnostic measures held-out items"):
        settings(diagnostic=True)


def test_the_best_measurement_is_what_is_kept(student, tmp_path):
    from w2s_align.training.verify import probe_logits

    dice, rows = random.Random(3), items(32)
    for row in rows:  # nothing to learn: what is learned makes the held-out loss higher
        row["label"] = dice.choice("01")
    chosen = {"held_out": 16, "evaluate_every": 2, "num_train_epochs": 12, "lr_scheduler_type": "constant"}
    kept = run(student, rows, tmp_path / "kept", keep="best", **chosen)
    best = int(min(kept.held_out, key=lambda row: row["loss"])["step"])
    assert best < 12, "the held-out loss must rise before the end for this test to say anything"
    short = run(student, rows, tmp_path / "short", **{**chosen, "num_train_epochs": best})
    open_model = AutoModelForSequenceClassification.from_pretrained
    saved, wanted = (probe_logits(open_model(r.model_dir), [[1, 3, 7, 16, 8, 17]])[0] for r in (kept, short))
    torch.testing.assert_close(saved, wanted, atol=1e-5, rtol=1e-5)
    assert any(f"those after step {best} of 12" in note for note in kept.notes)
    assert not (tmp_path / "kept" / "best.safetensors").exists()
