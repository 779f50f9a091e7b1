"""Pairs in TRL's other formats, checked against TRL's own code."""

from w2s_align.interchange import to_sft, to_unpaired
from w2s_align.pairing import model_order


def test_trl_agrees_with_the_unpaired_format(make):
    from datasets import Dataset
    from trl import unpair_preference_dataset

    weak, weaker = make.responses([("a", "w", 0, "yes")]), make.responses([("a", "v", 0, "no")])
    pairs = model_order(weak, weaker, make.prompts("a")).table
    own = to_unpaired(pairs)
    theirs = unpair_preference_dataset(Dataset(pairs.select(["prompt", "chosen", "rejected"])))
    assert theirs.to_list() == own.to_pylist()


def test_to_sft(make):
    weak, weaker = make.responses([("a", "w", 0, "yes")]), make.responses([("a", "v", 0, "no")])
    pairs = model_order(weak, weaker, make.prompts("a")).table
    user = {"role": "user", "content": "question a"}
    assert to_sft(pairs).to_pylist() == [{"messages": [user, {"role": "assistant", "content": "yes"}]}]
    assert to_sft(pairs, "rejected")["messages"][0].as_py()[1]["content"] == "no"
