"""Labels as rows to train on, views of items, and what labels a classifier gives."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from w2s_align.errors import UserError
from w2s_align.lab import build_tokenizer, carry_items
from w2s_align.records import Prompt, Score, from_table, to_table
from w2s_align.scoring.items import ItemReader, item_messages
from w2s_align.scoring.labels import label_items, training_rows

ITEMS = to_table([Prompt.of(f"item {i}", answer=str(i % 2), meta={"views": {"dim": []}}) for i in range(4)])
IDS = ITEMS["id"].to_pylist()


def labels(p: dict[str, float | None], classes: tuple[str, str] = ("0", "1")):
    rows = []
    for item, one in p.items():
        both = None if one is None else [{"label": classes[1], "p": one}, {"label": classes[0], "p": 1 - one}]
        rows.append(Score(item, 0, "m", "label", one, probabilities=both))
    return to_table(rows)


def test_gold_answers_are_labels_where_there_are_no_others():
    assert training_rows(ITEMS, None, ["0", "1"])["label"].to_pylist() == ["0", "1", "0", "1"]


def test_labels_go_to_their_items_in_the_order_of_the_classes():
    given = labels({IDS[2]: 0.7, IDS[0]: 0.1, IDS[1]: None})
    table = training_rows(ITEMS, given, ["0", "1"])
    assert table.column_names == ["prompt", "target"]  # gold answers are there for a diagnosis alone
    assert training_rows(ITEMS, given, ["0", "1"], gold=True)["label"].to_pylist() == ["0", "1", "0", "1"]
    assert table["target"].to_pylist() == [pytest.approx([0.9, 0.1]), None, pytest.approx([0.3, 0.7]), None]
    assert table.column_names == ["prompt", "target"]  # no gold answer is near


def test_labels_of_other_items_or_classes_are_refused():
    with pytest.raises(UserError, match="belong to other items: none of the 4 items"):
        training_rows(ITEMS, labels({"elsewhere": 0.5}), ["0", "1"])
    with pytest.raises(UserError, match="The labels are of the classes yes, no"):
        training_rows(ITEMS, labels({IDS[0]: 0.5}, ("no", "yes")), ["0", "1"])


def test_a_view_that_an_item_does_not_have_is_refused():
    with pytest.raises(UserError, match="has no view dam") as caught:
        item_messages(ITEMS, "dam")
    assert "Its views are: dim" in str(caught.value) and "dim?" in str(caught.value)


def classifier(folder: Path, **config) -> Path:
    from transformers import LlamaConfig, LlamaForSequenceClassification

    torch.manual_seed(0)
    shape = LlamaConfig(
        vocab_size=261, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2,
        max_position_embeddings=40, initializer_range=0.5, pad_token_id=0, num_labels=2, **config,
    )  # fmt: skip
    LlamaForSequenceClassification(shape).save_pretrained(folder)
    build_tokenizer().save_pretrained(folder)
    return folder


def test_labels_do_not_depend_on_the_batch_and_are_those_of_each_item_alone(tmp_path):
    model = classifier(tmp_path / "model", id2label={0: "no", 1: "yes"}, label2id={"no": 0, "yes": 1})
    texts = ["1+1", "1234+5678", "7", "12+3456+7"]
    items = to_table([Prompt.of(text) for text in texts])
    one, many = (label_items(str(model), items, name="m", batch_size=size) for size in (1, 4))
    for first, second in zip(from_table(Score, one), from_table(Score, many), strict=True):
        assert first.value == pytest.approx(second.value, abs=1e-6) and first.answer == second.answer
        assert [entry["label"] for entry in first.probabilities] == ["no", "yes"]
    from transformers import AutoModelForSequenceClassification

    opened = AutoModelForSequenceClassification.from_pretrained(model).eval()
    (ids,) = ItemReader().ids(build_tokenizer(), [[{"role": "user", "content": texts[1]}]])
    with torch.no_grad():
        p = opened(input_ids=torch.tensor([ids])).logits[0].softmax(dim=0)
    assert from_table(Score, many)[1].probabilities[1]["p"] == pytest.approx(float(p[1]), abs=1e-6)


def test_the_view_of_the_training_is_read_and_the_mean_of_several_is_taken(tmp_path):
    plain, noisy = (
        classifier(tmp_path / str(view), w2s_items=ItemReader(view=view).config()) for view in (None, "noisy")
    )
    items = to_table(carry_items(6, 0, "test", draws=2))
    own = label_items(str(noisy), items, name="m")
    assert own.equals(label_items(str(plain), items, name="m", views=["noisy"]))
    assert not own.equals(label_items(str(plain), items, name="m"))
    both = label_items(str(plain), items, name="m", views=["noisy", "noisy_2"])
    second = label_items(str(plain), items, name="m", views=["noisy_2"])
    p = [[row.probabilities[1]["p"] for row in from_table(Score, table)] for table in (own, second, both)]
    assert [(a + b) / 2 for a, b in zip(p[0], p[1], strict=True)] == pytest.approx(p[2])


def test_an_item_beyond_the_context_has_no_label_and_finished_blocks_are_kept(tmp_path):
    model = classifier(tmp_path / "model")
    items = to_table([Prompt.of("1" * 60), Prompt.of("1")])
    made = label_items(str(model), items, name="m", folder=tmp_path / "blocks", own=[items["id"][1].as_py()])
    long, short = from_table(Score, made)
    assert long.value is None and long.outcome == "longer than the model reads" and long.probabilities is None
    assert short.outcome == "trained on" and short.value >= 0.5
    (block,) = (tmp_path / "blocks").iterdir()
    changed = to_table([Score(row.prompt_id, 0, "kept", "label", 1.0) for row in (long, short)])
    import pyarrow.parquet as pq

    pq.write_table(changed, block)
    assert label_items(str(model), items, name="m", folder=tmp_path / "blocks") == changed


def test_what_is_no_classifier_is_refused(tmp_path):
    from transformers import LlamaConfig, LlamaForCausalLM

    LlamaForCausalLM(
        LlamaConfig(vocab_size=261, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
    ).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="is not a classifier"):
        label_items(str(tmp_path), ITEMS, name="m")
