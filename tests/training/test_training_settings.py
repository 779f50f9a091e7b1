"""Settings: names, refusals, advice, and that they load nothing heavy."""

import re
import subprocess
import sys

import pytest
from pydantic import ValidationError

from w2s_align.training import RENAMED, DPOSettings, Lora, SFTSettings, TrainResources, TrainSettings
from w2s_align.training.methods.dpo import DPO_LOSSES
from w2s_align.training.settings import SCHEDULERS


def test_importing_the_settings_loads_nothing_heavy():
    code = (
        "import sys, w2s_align.training, w2s_align.training.settings;"
        "print([m for m in ('torch', 'transformers', 'trl', 'datasets', 'peft', 'pandas') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_losses_are_those_of_the_installed_trl():
    from trl import DPOConfig

    text = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    assert set(re.findall(r"`'(\w+)'`", text)) == set(DPO_LOSSES)


def test_the_schedules_exist_in_transformers():
    from transformers import SchedulerType

    assert set(SCHEDULERS) <= {schedule.value for schedule in SchedulerType}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"loss": "sigmoid_nrom"}, "Did you mean sigmoid_norm?"),
        ({"loss": ["sigmoid", "stf"]}, "Did you mean sft?"),
        ({"loss": []}, "loss is empty"),
        ({"loss": ["sigmoid", "sft"], "loss_weights": [1.0]}, "2 names and loss_weights 1 numbers"),
        ({"loss": "exo_pair"}, "label_smoothing above 0"),
        ({"loss": "robust", "label_smoothing": 0.5}, "below 0.5"),
        ({"loss": "aot", "f_divergence_type": "forward_kl"}, "aot has no form"),
        ({"loss": "aot", "use_weighting": True}, "cannot be combined"),
        ({"lr_scheduler_type": "cosin"}, "Did you mean cosine?"),
        ({"learning_rte": 1e-6}, "Extra inputs are not permitted"),
    ],
)
def test_what_cannot_work_is_refused(settings, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        DPOSettings(**{"learning_rate": 1e-6} | settings)


def test_the_learning_rate_has_no_default():
    with pytest.raises(ValidationError, match="learning_rate"):
        SFTSettings()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"loss": "sigmoid_norm", "beta": 0.1}, ["5 to 10"]),
        ({"loss": "sigmoid_norm", "beta": 5}, []),
        ({"loss": "sigmoid", "beta": 5}, ["0.01 to 0.5"]),
        ({"loss": "sigmoid", "beta": 0.1}, []),
        ({"loss": ["sigmoid_norm", "sft"], "beta": 5}, []),
        ({"label_smoothing": 0.1}, ["no effect"]),
        ({"adapter": Lora(dropout=0.1)}, ["no effect"]),
    ],
)
def test_advice_about_what_is_rarely_meant(settings, words):
    advice = DPOSettings(learning_rate=1e-6, **settings).advice()
    assert len(advice) == len(words)
    assert all(word in sentence for word, sentence in zip(words, advice, strict=True))


def test_a_schedule_with_a_floor_has_one_by_default():
    assert TrainSettings(learning_rate=1).scheduler_kwargs == {"min_lr_rate": 0.1}
    assert TrainSettings(learning_rate=1, lr_scheduler_kwargs={"min_lr": 0}).scheduler_kwargs == {"min_lr": 0}
    assert TrainSettings(learning_rate=1, lr_scheduler_type="linear").scheduler_kwargs == {}


def test_a_renamed_argument_is_no_current_one():
    current = set(DPOSettings.model_fields) | set(SFTSettings.model_fields)
    assert not current & set(RENAMED)
    assert {"warmup_ratio", "torch_dtype", "max_seq_length", "rpo_alpha", "loss_type"} <= set(RENAMED)
    # Resources of today may carry a name that used to be an argument of the training itself.
    assert set(TrainResources.model_fields) & set(RENAMED) == {"gradient_checkpointing", "padding_free"}


def test_every_field_has_help():
    for settings in (Lora, DPOSettings, SFTSettings, TrainResources):
        assert all(field.description for field in settings.model_fields.values())
