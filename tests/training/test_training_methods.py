"""KTO, reward models, SimPO, CPO, ORPO: losses of a fixed batch against their formulas, and what they leave behind."""

import json
import math

import pytest
import torch

from w2s_align.errors import UserError
from w2s_align.training import (
    CPOSettings,
    KTOSettings,
    Lora,
    ORPOSettings,
    RewardModelSettings,
    SimPOSettings,
    TrainResources,
    train,
)
from w2s_align.training.methods.reward import padding_token
from w2s_align.training.models import SCORE_HEAD, load_model, open_start

PLAIN = {"learning_rate": 1e-2, "batch_size": 4, "max_steps": 1, "lr_scheduler_type": "constant", "warmup_steps": 0}


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def token_logps(model, tokenizer, prompt, answer):
    """Log-probabilities of all tokens of a chat but the first, and how many of them are the prompt's."""
    start = tokenizer.apply_chat_template(prompt, add_generation_prompt=True, return_dict=True)["input_ids"]
    ids = tokenizer.apply_chat_template(prompt + answer, return_dict=True)["input_ids"]
    with torch.no_grad():
        scores = torch.log_softmax(model(input_ids=torch.tensor([ids])).logits[0].double(), dim=-1)
    return [float(scores[i - 1, ids[i]]) for i in range(1, len(ids))], len(start) - 1


def response_logps(student, rows):
    """Token log-probabilities of every pair's two responses, and of the chosen chats as a whole."""
    model, tokenizer = load_model(student), open_start(student).tokenizer
    pairs, chats = [], []
    for row in rows:
        (chosen, start), (rejected, _) = (
            token_logps(model, tokenizer, row["prompt"], row[side]) for side in ("chosen", "rejected")
        )
        pairs.append((chosen[start:], rejected[start:]))
        chats.append(chosen)
    return pairs, chats


def mean(values):
    return sum(values) / len(values)


def softplus(x):
    return math.log1p(math.exp(-abs(x))) + max(x, 0)


def nll(token_lists):
    return -sum(map(sum, token_lists)) / sum(map(len, token_lists))


def simpo(pairs, chats):
    """-log sigmoid(beta * (mean log p_c - mean log p_r) - gamma), arXiv 2405.14734 equation 6; beta 2, gamma 0.5."""
    return mean([softplus(-(2.0 * (mean(c) - mean(r)) - 0.5)) for c, r in pairs])


def cpo(pairs, chats):
    """-log sigmoid(beta * (log p_c - log p_r)) + nll of the chosen response, arXiv 2401.08417 equations 4 and 5."""
    return mean([softplus(-0.1 * (sum(c) - sum(r))) for c, r in pairs]) + nll([c for c, _ in pairs])


def cpo_hinge(pairs, chats):
    return mean([max(0.0, 1 - 0.1 * (sum(c) - sum(r))) for c, r in pairs])


def cpo_ipo(pairs, chats):
    return mean([(mean(c) - mean(r) - 1 / (2 * 0.1)) ** 2 for c, r in pairs])


def orpo(pairs, chats):
    """nll of the chosen chat - beta * log sigmoid(log odds ratio) of mean log-probabilities, arXiv 2403.07691."""

    def log_odds(tokens):
        return mean(tokens) - math.log1p(-math.exp(mean(tokens)))

    return nll(chats) + 0.1 * mean([softplus(-(log_odds(c) - log_odds(r))) for c, r in pairs])


@pytest.mark.parametrize(
    ("settings", "formula"),
    [
        (SimPOSettings(**PLAIN), simpo),
        (CPOSettings(**PLAIN), cpo),
        (CPOSettings(**PLAIN, loss="hinge", nll_weight=0), cpo_hinge),
        (CPOSettings(**PLAIN, loss="ipo", nll_weight=0), cpo_ipo),
        (ORPOSettings(**PLAIN), orpo),
    ],
)
def test_losses_without_a_reference_against_their_formulas(tiny, student, tmp_path, settings, formula):
    rows = tiny.pairs(4)
    report = train(student, rows, tmp_path, settings)
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(formula(*response_logps(student, rows)), rel=1e-4)
    assert report.verified["logit_error"] < 1e-5 < report.verified["logit_change"]


def test_a_template_that_ends_a_turn_with_a_newline_gets_no_second_end(tiny, tmp_path):
    template = tiny.template.replace("{{ eos_token }}", "{{ eos_token }}{{ '\\n' }}")
    student = tiny.model(tmp_path / "student", tiny.tokenizer(template))
    rows = tiny.pairs(4)
    train(student, rows, tmp_path / "out", SimPOSettings(**PLAIN))
    assert metrics(tmp_path / "out")[0]["loss"] == pytest.approx(simpo(*response_logps(student, rows)), rel=1e-4)


def test_micro_batches_do_not_change_a_loss_without_a_reference(tiny, student, tmp_path):
    settings = SimPOSettings(**PLAIN | {"max_steps": 3})
    for micro in (4, 1):
        resources = TrainResources(micro_batch_size=micro)
        train(student, tiny.pairs(8), tmp_path / str(micro), settings, resources=resources)
    first, second = ([row["loss"] for row in metrics(tmp_path / name)] for name in ("4", "1"))
    assert first == pytest.approx(second, rel=1e-4)


def test_kto_against_its_formula(tiny, student, tmp_path):
    """1 - sigmoid(beta (r - z)) for good, 1 - sigmoid(beta (z - r)) for bad responses (arXiv 2402.01306, eq. 7)."""
    settings = KTOSettings(**PLAIN | {"max_steps": 2}, beta=0.5, kl_batch=4)
    rows = tiny.pairs(2)  # four responses: every batch is all of them
    train(student, rows, tmp_path / "two", settings)
    once = train(student, rows, tmp_path / "one", settings.model_copy(update={"max_steps": 1}))
    start, tokenizer = load_model(student), open_start(student).tokenizer
    policy = load_model(once.model_dir)

    def ratio(prompt, answer):
        sums = []
        for model in (policy, start):
            tokens, cut = token_logps(model, tokenizer, prompt, answer)
            sums.append(sum(tokens[cut:]))
        return sums[0] - sums[1]

    from w2s_align.training.prepare import prepare_labeled
    from w2s_align.training.tokens import ChatEncoder

    encoder = ChatEncoder(tokenizer, frozenset([2]))
    table = prepare_labeled(rows, encoder, settings, tmp_path / "rows", seed=0, together=4).dataset().to_list()
    # Each prompt with the response of the row before it, the first with the last one's.
    strangers = [ratio(row["prompt"], table[i - 1]["completion"]) for i, row in enumerate(table)]
    z = max(0.0, mean(strangers))
    losses = []
    for row in table:
        r = ratio(row["prompt"], row["completion"])
        sign = 1 if row["label"] else -1
        losses.append(1 / (1 + math.exp(sign * 0.5 * (r - z))))
    first, second = (row["loss"] for row in metrics(tmp_path / "two"))
    assert first == pytest.approx(0.5, rel=1e-5)
    assert abs(second - 0.5) > 1e-3
    assert second == pytest.approx(mean(losses), rel=1e-4)


def test_kto_without_a_kl_term_and_with_weights(tiny, student, tmp_path):
    settings = KTOSettings(**PLAIN, loss="apo_zero_unpaired", rejected_weight=0.5)
    train(student, tiny.pairs(2), tmp_path, settings, resources=TrainResources(micro_batch_size=1))
    assert metrics(tmp_path)[0]["loss"] == pytest.approx((2 * 0.5 + 2 * 0.25) / 4, rel=1e-4)


def test_responses_of_pairs_are_shuffled_by_the_seed(tiny, student, tmp_path):
    from w2s_align.training.prepare import prepare_labeled
    from w2s_align.training.tokens import ChatEncoder

    encoder = ChatEncoder(open_start(student).tokenizer, frozenset([2]))
    settings = KTOSettings(**PLAIN, kl_batch=2)
    tables = [
        prepare_labeled(tiny.pairs(5), encoder, settings, tmp_path, seed=seed, together=2).dataset().to_list()
        for seed in (0, 0, 1)
    ]
    assert tables[0] == tables[1] != tables[2]
    assert len(tables[0]) == 12  # 10 responses, filled up to whole batches of 4
    assert 0 < sum(row["label"] for row in tables[0][:6]) < 6
    one, other = tables[0][:2]
    digits = {"</s>": 2} | {str(digit): digit + 6 for digit in range(10)}
    assert one["neighbor_ids"] == [digits[c] for c in other["completion"][0]["content"]] + [2]


def test_a_reward_model_learns_to_tell_the_two_sides(tiny, student, tmp_path):
    rows = tiny.pairs(16)
    for row in rows:
        row["chosen"], row["rejected"] = ([{"role": "assistant", "content": digit * 4}] for digit in ("7", "3"))
    settings = RewardModelSettings(**PLAIN | {"max_steps": 30, "center_rewards": 0.01})
    report = train(student, rows, tmp_path, settings)
    assert metrics(tmp_path)[0]["loss"] == pytest.approx(math.log(2), abs=0.5)
    assert report.metrics["last"]["loss"] < 0.1
    assert report.verified["logit_error"] < 1e-5
    model, tokenizer = load_model(report.model_dir, head=SCORE_HEAD), open_start(report.model_dir).tokenizer
    scores = []
    for side in ("chosen", "rejected"):
        ids = tokenizer.apply_chat_template(rows[0]["prompt"] + rows[0][side], return_tensors="pt", return_dict=True)
        scores.append(float(model(**ids).logits))
    assert scores[0] > scores[1] + 1
    assert "reward modeling" in (tmp_path / "model" / "README.md").read_text()


def test_the_reward_scorer_opens_what_was_trained(tiny, student, tmp_path):
    report = train(student, tiny.pairs(8), tmp_path, RewardModelSettings(**PLAIN, adapter=Lora(r=2)))
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["architectures"] == ["LlamaForSequenceClassification"]
    assert load_model(report.model_dir, head=SCORE_HEAD).config.num_labels == 1
    assert (tmp_path / "adapter" / "adapter_model.safetensors").exists()


@pytest.mark.parametrize(
    ("changes", "wanted", "found"),
    [
        ({}, None, "<pad>"),
        ({"pad_token": "</s>"}, None, "<pad>"),  # a special token that is named for padding
        ({"pad_token": None}, "<unk>", "<unk>"),
    ],
)
def test_a_reward_models_padding_never_ends_a_turn(tiny, changes, wanted, found):
    assert padding_token(tiny.tokenizer(**changes), wanted) == found


def test_a_reward_model_without_a_padding_token_is_refused(tiny, student, tmp_path):
    tokenizer = tiny.tokenizer()
    with pytest.raises(UserError, match="Set pad_token to a special token"):
        padding_token(tokenizer, "</s>")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (lambda: KTOSettings(**PLAIN, kl_batch=3), "not a multiple of kl_batch"),
        (lambda: KTOSettings(**PLAIN, kl_batch=4, held_out=2), "leave held_out out"),
        (lambda: CPOSettings(**PLAIN, loss="ipo", label_smoothing=0.1), "no effect on ipo"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        settings()


def test_a_kl_term_over_another_number_of_rows_is_refused(tiny, student, tmp_path):
    settings = KTOSettings(**PLAIN, kl_batch=4)
    with pytest.raises(UserError, match="are not kl_batch 4"):
        train(student, tiny.pairs(4), tmp_path, settings, resources=TrainResources(micro_batch_size=2))
