"""Passes without padding: the layout by hand, and values and gradients against the padded computation."""

import copy

import pytest
import torch

from w2s_align.training.methods import all_methods
from w2s_align.training.methods.dpo import DPO_LOSSES
from w2s_align.training.padding_free import ATTENTION, FAMILIES, pack, pack_forward, why_padded, without_padding
from w2s_align.training.resources import TrainResources

VALUES = ("log_probs", "entropy", "mean_logits", "is_top1", "log_sum_sq_probs")


def rows_of(*lengths):
    """Return input_ids, attention_mask and labels of pairs with these lengths of prompt, chosen and rejected."""
    dice, pairs = torch.Generator().manual_seed(0), len(lengths)
    size = max(prompt + max(chosen, rejected) for prompt, chosen, rejected in lengths)
    ids = torch.randint(3, 21, (2 * pairs, size), generator=dice)
    mask, labels = torch.zeros_like(ids), torch.full_like(ids, -100)
    for pair, (prompt, *sides) in enumerate(lengths):
        ids[pair + pairs, :prompt] = ids[pair, :prompt]
        for row, response in zip((pair, pair + pairs), sides, strict=True):
            mask[row, : prompt + response] = 1
            ids[row, prompt + response :] = 0
            labels[row, prompt : prompt + response] = ids[row, prompt : prompt + response]
    return ids, mask, labels


def test_the_layout_by_hand():
    ids = torch.tensor([[7, 8, 1, 2, 3], [9, 4, 0, 0, 0], [7, 8, 5, 0, 0], [9, 6, 6, 6, 0]])
    labels = torch.tensor(
        [[-100, -100, 1, 2, 3], [-100, 4, -100, -100, -100], [-100, -100, 5, -100, -100], [-100, 6, 6, 6, -100]]
    )
    packing = pack(ids, (ids > 0).long(), labels, pairs=True)
    # 7 8 [1 2 (3)], its other response [(5)] needs nothing more; 9 [(4)], then [6 6 (6)]
    assert ids.flatten()[packing.tokens].tolist() == [7, 8, 1, 2, 9, 6, 6]
    assert packing.positions.tolist() == [0, 1, 2, 3, 0, 1, 2]
    assert (packing.sizes, packing.shared) == ([4, 0, 1, 2], [0, 2, 0, 1])
    # the token before each label: 1 2 3, 4, 5, 6 6 6
    assert packing.targets.tolist() == [1, 2, 3, 4, 1, 4, 5, 6]
    alone = pack(ids, (ids > 0).long(), labels, pairs=False)
    assert (alone.sizes, alone.shared) == ([4, 1, 2, 3], [0, 0, 0, 0])
    assert ids.flatten()[alone.tokens].tolist() == [7, 8, 1, 2, 9, 7, 8, 9, 6, 6]
    assert alone.targets.tolist() == [1, 2, 3, 4, 6, 7, 8, 9]


def test_rows_that_share_no_prompt_are_computed_apart():
    ids, mask, labels = rows_of((3, 4, 2))
    ids[1, 0] = 20 - ids[0, 0]
    assert pack(ids, mask, labels, pairs=True).shared == [0, 0]


FAMILY = {
    "vocab_size": 21,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 8,
    "max_position_embeddings": 64,
    "sliding_window": 6,
    "use_sliding_window": True,
    "max_window_layers": 1,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.2,
}


def build(family):
    from transformers import AutoConfig, AutoModelForCausalLM

    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **FAMILY), attn_implementation="sdpa")
    return model.eval()  # without dropout


def values_and_gradients(model, rows, weights):
    ids, mask, labels = rows
    output = model(input_ids=ids, attention_mask=mask, labels=labels, fused_lm_head=True, use_cache=False)
    (output.log_probs * weights).sum().backward()
    gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    return {name: getattr(output, name).detach().float() for name in VALUES}, gradients


@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("pairs", [True, False])
def test_values_and_gradients_of_every_family_are_those_of_padded_passes(family, pairs):
    from trl.trainer import add_fused_lm_head

    rows = rows_of((5, 7, 3), (4, 2, 9), (1, 6, 6), (9, 1, 12))
    weights = torch.randn(8, rows[0].shape[1] - 1, generator=torch.Generator().manual_seed(1))
    padded = build(family)
    packed = copy.deepcopy(padded)
    for model in (padded, packed):
        add_fused_lm_head(model, outputs=VALUES)
    pack_forward(packed, pairs=pairs)
    (expected, slopes), (found, found_slopes) = (values_and_gradients(m, rows, weights) for m in (padded, packed))
    for name in VALUES:
        assert torch.allclose(found[name], expected[name], atol=1e-5), name
    assert slopes.keys() == found_slopes.keys()
    for name, slope in slopes.items():
        assert float((found_slopes[name] - slope).abs().max()) <= 1e-5 * max(1.0, float(slope.abs().max())), name


def test_a_pass_that_is_not_packed_attends_as_before():
    """Generation and the check of the saved model go the ordinary way, with a mask for padding on the left."""
    model = build("llama").eval()
    ids = torch.tensor([[0, 0, 5, 6, 7], [3, 4, 5, 6, 7]])
    mask = (ids > 0).long()
    with torch.no_grad():
        expected = model(input_ids=ids, attention_mask=mask).logits
        from trl.trainer import add_fused_lm_head

        add_fused_lm_head(model)
        pack_forward(model, pairs=True)
        assert model.config._attn_implementation == ATTENTION
        found = model(input_ids=ids, attention_mask=mask).logits
        assert torch.equal(found[1], expected[1])
        assert torch.allclose(found[0, 2:], expected[0, 2:], atol=1e-6)
    assert "attn_implementation" not in model.config.to_json_string()


def test_padding_costs_nothing(monkeypatch):
    """What goes through the layers and the head is as long as the rows are, a prompt counted once."""
    from trl.kernels import chunked_logprob
    from trl.trainer import add_fused_lm_head

    model, rows = build("llama"), rows_of((10, 4, 20), (3, 30, 1))
    add_fused_lm_head(model)
    pack_forward(model, pairs=True)
    seen = {}
    model.model.layers[0].mlp.register_forward_hook(lambda _, args, __: seen.update(tokens=args[0].shape[1]))
    tile = chunked_logprob._forward_tile
    monkeypatch.setattr(
        chunked_logprob,
        "_forward_tile",
        lambda logits, *rest, **k: (seen.update(head=len(logits)), tile(logits, *rest, **k)),
    )
    output = model(input_ids=rows[0], attention_mask=rows[1], labels=rows[2], fused_lm_head=True, use_cache=False)
    assert output.log_probs.shape == (4, 32)
    assert seen == {"tokens": (10 + 3 + 19) + (3 + 29 + 0), "head": 4 + 20 + 30 + 1}


def gradients_of_a_step(student, rows, out, loss, packed, micro, **changes):
    """Return the loss and the gradient of TRL's trainer over one batch, before any update."""
    from datasets import Dataset
    from transformers import TrainerCallback
    from trl import DPOConfig, DPOTrainer

    class Keep(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            self.gradients = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}

    keep = Keep()
    config = DPOConfig(
        str(out),
        loss_type=loss,
        beta=0.5,
        label_smoothing=0.1,
        per_device_train_batch_size=micro,
        gradient_accumulation_steps=4 // micro,
        max_steps=1,
        max_grad_norm=0.0,
        bf16=False,
        use_cpu=True,
        report_to="none",
        logging_steps=1,
        save_strategy="no",
        **changes,
    )
    with without_padding("dpo_trainer", pairs=True, on=packed):
        trainer = DPOTrainer(str(student), args=config, train_dataset=Dataset.from_list(rows), callbacks=[keep])
    # away from the reference, where all losses have a slope
    with torch.no_grad():
        for parameter in trainer.model.parameters():
            parameter.mul_(1.05)
    trainer.train()
    return trainer.state.log_history[0]["loss"], keep.gradients


def equal(first, second, tolerance=1e-5):
    assert first[0] == pytest.approx(second[0], rel=1e-5)
    for name, gradient in first[1].items():
        most = tolerance * max(1.0, float(gradient.abs().max()))
        assert float((second[1][name] - gradient).abs().max()) <= most, name


@pytest.fixture(scope="module")
def plain(tiny, student):
    """The loss of four pairs and its gradient by transformers alone: whole logits of one row at a time, no padding."""
    from w2s_align.training.models import load_model, open_start

    model, reference, tokenizer = load_model(student), load_model(student), open_start(student).tokenizer
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.05)

    def logp(of, row, side):
        start = tokenizer.apply_chat_template(row["prompt"], add_generation_prompt=True, return_dict=True)["input_ids"]
        ids = torch.tensor(tokenizer.apply_chat_template(row["prompt"] + row[side], return_dict=True)["input_ids"])
        scores = of(input_ids=ids[None]).logits[0, :-1].log_softmax(-1)
        return scores.gather(1, ids[1:, None])[len(start) - 1 :].sum()

    margins = [
        sum(
            sign * (logp(model, row, side) - logp(reference, row, side).detach())
            for side, sign in (("chosen", 1), ("rejected", -1))
        )
        for row in tiny.pairs(4)
    ]
    loss = -torch.nn.functional.logsigmoid(0.5 * torch.stack(margins)).mean()
    loss.backward()
    return loss.item(), {name: parameter.grad for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("packed", "micro", "changes"),
    [
        pytest.param(False, 4, {}, id="logits in chunks"),
        pytest.param(True, 4, {}, id="no padding, prompts once, logits of labels"),
        pytest.param(True, 1, {}, id="passes by tokens"),
        pytest.param(False, 4, {"gradient_checkpointing": True}, id="recomputation"),
        pytest.param(True, 2, {"gradient_checkpointing": True}, id="recomputation without padding"),
        pytest.param(True, 4, {"precompute_ref_log_probs": True}, id="reference computed once"),
    ],
)
def test_gradients_of_every_optimization_are_those_of_the_plain_computation(
    tiny, student, tmp_path, plain, packed, micro, changes
):
    changes = {"gradient_checkpointing": False, **changes}
    equal(plain, gradients_of_a_step(student, tiny.pairs(4), tmp_path, "sigmoid", packed, micro, **changes))


@pytest.mark.parametrize("loss", DPO_LOSSES)
def test_gradients_of_every_loss_are_those_of_plain_trl(tiny, student, tmp_path, loss):
    rows = tiny.pairs(4)
    # DiscoPOP blends two losses by sigmoid(log-ratio / 0.05): rounding of a log-ratio comes through 20 times as large,
    # and more on some processors than on others.
    tolerance = 1e-5 / 0.05 if loss == "discopop" else 1e-5
    equal(*(gradients_of_a_step(student, rows, tmp_path, loss, packed, 4) for packed in (False, True)), tolerance)


@pytest.mark.parametrize(
    "changes",
    [
        {"ld_alpha": 0.5},
        {"use_weighting": True},
        {"f_divergence_type": "js_divergence"},
        {"precompute_ref_log_probs": True},
        {"gradient_checkpointing": False},
    ],
)
def test_gradients_of_every_switch_are_those_of_plain_trl(tiny, student, tmp_path, changes):
    rows = tiny.pairs(4)
    equal(*(gradients_of_a_step(student, rows, tmp_path, "sigmoid", packed, 4, **changes) for packed in (False, True)))


def test_micro_batches_without_padding_add_up_to_the_plain_batch(tiny, student, tmp_path):
    rows = tiny.pairs(4)
    plain = gradients_of_a_step(student, rows, tmp_path, "sigmoid_norm", False, 4)
    equal(plain, gradients_of_a_step(student, rows, tmp_path, "sigmoid_norm", True, 1))


def test_an_adapter_without_padding_learns_as_with_it(tiny, student, tmp_path):
    from w2s_align.training import DPOSettings, Lora, train
    from w2s_align.training.models import load_model

    settings = DPOSettings(learning_rate=1e-2, batch_size=4, max_steps=3, adapter=Lora(r=4, alpha=8))
    reports = [
        train(student, tiny.pairs(8), tmp_path / str(on), settings, resources=TrainResources(padding_free=on))
        for on in (True, False)
    ]
    weights = [load_model(report.model_dir).state_dict() for report in reports]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


def test_sft_without_padding_learns_as_with_it(tiny, student, tmp_path):
    from w2s_align.training import SFTSettings, train
    from w2s_align.training.models import load_model

    settings = SFTSettings(learning_rate=1e-3, batch_size=4, max_steps=3)
    reports = [
        train(student, tiny.pairs(8), tmp_path / str(on), settings, resources=TrainResources(padding_free=on))
        for on in (True, False)
    ]
    assert reports[0].metrics["last"]["loss"] == pytest.approx(reports[1].metrics["last"]["loss"], rel=1e-5)
    weights = [load_model(report.model_dir).state_dict() for report in reports]
    assert all(torch.allclose(weights[0][name], weights[1][name], atol=1e-5) for name in weights[0])


def test_where_passes_stay_padded_it_is_said(tiny, student, tmp_path):
    from transformers import AutoConfig

    assert why_padded(all_methods()["dpo"], str(student), TrainResources()) is None
    assert "padding_free is off" in why_padded(all_methods()["dpo"], str(student), TrainResources(padding_free=False))
    assert "sdpa can" in why_padded(all_methods()["sft"], str(student), TrainResources(attn_implementation="eager"))
    assert "reward is trained on padded rows" in why_padded(all_methods()["reward"], str(student), TrainResources())
    AutoConfig.for_model("mamba").save_pretrained(tmp_path)
    assert "models of type mamba" in why_padded(all_methods()["dpo"], str(tmp_path), TrainResources())


def test_the_trainers_own_head_is_put_back():
    from trl.trainer import add_fused_lm_head, dpo_trainer

    with pytest.raises(RuntimeError), without_padding("dpo_trainer", pairs=True):
        assert dpo_trainer.add_fused_lm_head is not add_fused_lm_head
        raise RuntimeError
    assert dpo_trainer.add_fused_lm_head is add_fused_lm_head
