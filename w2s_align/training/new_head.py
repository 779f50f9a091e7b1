"""A classifier to train: a start model with a head for its classes, an adapter, or everything but the head frozen.

Imports torch when it is called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from w2s_align.errors import UserError
from w2s_align.training.adapters import lora_config
from w2s_align.training.arguments import load_arguments

if TYPE_CHECKING:
    import torch

    from w2s_align.training.methods.classifier import ClassifierSettings
    from w2s_align.training.plan import TrainingPlan

SMALL = 0.01
"""Factor of a small new head, as in EleutherAI's replication."""


def open_classifier(plan: TrainingPlan, settings: ClassifierSettings) -> Any:
    """Load the start model of a training with its head, ready to be trained.

    Raises:
        UserError: The start is a classifier of other classes, or a class has no token of its own.
    """
    import torch

    classes = _classes_of(plan)
    if classes is not None and classes != settings.classes:
        raise UserError(
            f"{plan.start.source} is a classifier of {', '.join(classes)}.",
            f"Its head does not fit the classes {', '.join(settings.classes)}.",
            "Name the same classes in the same order, or start from the model before it.",
        )
    arguments = load_arguments(plan)
    model: Any = plan.start.load(arguments.pop("dtype"), **arguments)
    base = {id(parameter) for parameter in model.base_model.parameters()}
    head = [parameter for parameter in model.parameters() if id(parameter) not in base]
    if classes is None:
        with torch.no_grad():
            _fill(head, plan, settings)
    if settings.disable_dropout:
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
    if settings.trains_head_alone:
        model.base_model.requires_grad_(False)
    if settings.adapter is not None:
        model = _with_adapter(model, plan, settings)
    for parameter in model.parameters():
        if parameter.requires_grad:  # also the head beside an adapter on a base in bfloat16
            parameter.data = parameter.data.float()
    return model


def _classes_of(plan: TrainingPlan) -> list[str] | None:
    """Return the classes of a start that is a classifier; None for a language model."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(plan.start.path, trust_remote_code=False)
    if not (config.architectures or [""])[0].endswith("ForSequenceClassification"):
        return None
    return [config.id2label[i] for i in sorted(config.id2label)]


def _fill(head: list[torch.nn.Parameter], plan: TrainingPlan, settings: ClassifierSettings) -> None:
    for parameter in head:
        if settings.new_head == "small":
            parameter.mul_(SMALL)
        else:
            parameter.zero_()
    if settings.new_head == "unembedding":
        weight = next(parameter for parameter in head if parameter.dim() == 2)
        weight.copy_(_unembedding(plan, settings.classes).to(weight.dtype))


def _unembedding(plan: TrainingPlan, classes: list[str]) -> torch.Tensor:
    """Return the rows of the output head for the tokens that name the classes."""
    from w2s_align.training.models import load_model

    tokens = [plan.start.tokenizer.encode(name, add_special_tokens=False) for name in classes]
    longer = [name for name, ids in zip(classes, tokens, strict=True) if len(ids) != 1]
    if longer:
        raise UserError(
            f"new_head: unembedding: the class {longer[0]!r} is no single token of this model.",
            "A class begins with the output weights of the token that names it.",
            "Use classes that are tokens, such as 0 and 1, or new_head: zero.",
        )
    model: Any = load_model(plan.start.path)
    rows: torch.Tensor = model.get_output_embeddings().weight[[ids[0] for ids in tokens]]
    return rows


def _with_adapter(model: Any, plan: TrainingPlan, settings: ClassifierSettings) -> Any:
    from peft import get_peft_model, prepare_model_for_kbit_training

    assert settings.adapter is not None
    if settings.adapter.load_in_4bit:
        model = prepare_model_for_kbit_training(model, use_gradient_checkpointing=plan.recompute)
    elif plan.recompute:
        model.enable_input_require_grads()  # recomputed layers need an input with a gradient
    return get_peft_model(model, lora_config(settings.adapter, plan.start.head))
