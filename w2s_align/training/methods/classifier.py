"""classifier: one class for an item, learned from gold labels or from the probabilities that a weaker model gives.

Trained by transformers' own trainer. Writes a sequence classifier whose configuration names the classes and says how
items are read; step `label` opens it.

    rows = [{"prompt": [{"role": "user", "content": "Is 7 prime?"}], "target": [0.1, 0.9]}, ...]
    train("Qwen/Qwen2.5-1.5B", rows, "out", ClassifierSettings(learning_rate=1e-5, loss="logconf"))
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

from pydantic import Field, field_validator, model_validator

from w2s_align.errors import UserError
from w2s_align.records import Settings
from w2s_align.scoring.items import CONFIG, ItemReader, item_text
from w2s_align.training.arguments import build_config
from w2s_align.training.label_losses import BLENDED, OVER_BATCH, LabelLoss, LossName
from w2s_align.training.method import Inputs, Method
from w2s_align.training.models import CLASS_HEAD, Head
from w2s_align.training.settings import TrainSettings

if TYPE_CHECKING:
    from w2s_align.training.data import RowCollector, TrainingData
    from w2s_align.training.formats import Rows
    from w2s_align.training.plan import TrainingPlan
    from w2s_align.training.tokens import ChatEncoder

SMALLEST_BATCH = 8
"""Rows that a threshold over a batch takes at least: of fewer, a quantile is little more than one of their values."""


class Example(Settings):
    """An item that is shown with its class."""

    text: str
    """Its text."""
    label: str
    """Its class."""


class ClassifierSettings(TrainSettings):
    """Cross entropy with a target made of the labels and, in most losses, of what the student says itself."""

    classes: list[str] = Field(["0", "1"], min_length=2)
    """The classes, as items have them for answers."""
    loss: LossName = "xent"
    """xent: the labels as they are. logconf: part of the target is the student's own prediction, made hard so that the
    classes keep their shares (arXiv 2312.09390, appendix A.4). entropy: part is its prediction as it is. product:
    labels times predictions. window: only items of which the student is not sure. kl: xent less the labels'
    entropy."""
    hard_labels: bool = False
    """Take the most probable class of each label as certain."""
    alpha: float = Field(0.5, ge=0, le=1)
    """Share of the target that is the student's own prediction, at the end of the warm-up (logconf, entropy)."""
    alpha_warmup: float = Field(0.2, ge=0)
    """Part of the training over which alpha rises: a share, or from 1 on a number of steps."""
    alpha_schedule: Literal["linear", "public_code"] = "linear"
    """linear: from 0 to alpha. public_code: as the authors' code did, alpha times the progress, then a jump."""
    prior: float | None = Field(None, gt=0, lt=1)
    """Share of the second class among the hardened predictions of logconf. Default: the mean label of each batch."""
    student_power: float = Field(1.0, ge=0)
    """Exponent of the student's prediction in product."""
    label_power: float = Field(1.0, ge=0)
    """Exponent of the labels in product."""
    radius: float | Literal["median"] = 0.15
    """window trains on items whose largest probability is below 0.5 + radius; median takes the median distance of the
    batch's labels from 0.5."""
    new_head: Literal["zero", "small", "unembedding"] = "zero"
    """Weights of a new head. zero: all 0. small: transformers' own, times 0.01. unembedding: those of the tokens that
    name the classes. A model that is a classifier of these classes keeps its head."""
    train_only: Literal["all", "head"] = "all"
    """head: a linear probe, everything else stays as it is."""
    template: Literal["chat", "plain"] = "chat"
    """chat: items are rendered by the chat template, up to where an answer begins. plain: their text alone, for base
    models."""
    view: str | None = None
    """Which view of the items this model reads, in its training and whenever it labels. Default: the items as they
    are."""
    disable_dropout: bool = True
    """Switch off all dropout."""
    diagnostic: bool = False
    """Measure held-out items against their gold answers in place of the labels that are learned, also where early
    stopping or keep: best choose by it: what would be gained if gold were there (arXiv 2312.09390, section 5.1.1).
    For diagnosis alone: such a student has seen gold answers."""
    shots: int = Field(0, ge=0, le=64)
    """Examples before every item, in training and when it labels: so many rows with the labels that are learned (made
    hard), drawn with the seed and left out of the training; their order is another one for each item (arXiv
    2410.13215: 2, 16 or 32)."""
    examples: list[Example] = []
    """Examples of your own in place of drawn ones: [{text: ..., label: ...}]."""

    @field_validator("classes")
    @classmethod
    def _classes_differ(cls, classes: list[str]) -> list[str]:
        if len(set(classes)) < len(classes):
            raise ValueError(f"the classes {', '.join(classes)} are not all different")
        return classes

    @field_validator("quick_task")
    @classmethod
    def _writes_no_answers(cls, value: object) -> None:
        if value is not None:
            raise ValueError("a classifier writes no answers; follow held-out items: held_out")

    @field_validator("too_long")
    @classmethod
    def _reads_the_end(cls, value: str) -> str:
        if value == "truncate":
            raise ValueError("truncate would cut the end of an item, where its class is read; use drop or error")
        return value

    @field_validator("radius")
    @classmethod
    def _window_is_open(cls, radius: float | str) -> float | str:
        if isinstance(radius, float | int) and not 0 < radius <= 0.5:
            raise ValueError("radius lies between 0 and 0.5: a probability is that far from 0.5 at most")
        return radius

    @model_validator(mode="after")
    def _has_something_to_diagnose(self) -> ClassifierSettings:
        if self.diagnostic and not self.held_out:
            raise ValueError("diagnostic measures held-out items: set held_out, e.g. to 0.05")
        return self

    @model_validator(mode="after")
    def _fits_the_loss(self) -> ClassifierSettings:
        if self.loss in OVER_BATCH and len(self.classes) != 2:
            raise ValueError(
                f"loss {self.loss} has a threshold between two classes, and there are {len(self.classes)}"
            )
        if self.loss in OVER_BATCH and self.batch_size < SMALLEST_BATCH:
            raise ValueError(
                f"batch_size {self.batch_size} is too small for the threshold of {self.loss}, which is taken over the "
                f"batch: use {SMALLEST_BATCH} or more, 32 in the source"
            )
        if self.train_only == "head" and self.adapter is not None:
            raise ValueError("train_only: head trains no adapter; leave one of the two out")
        unknown = {example.label for example in self.examples} - set(self.classes)
        if unknown:
            raise ValueError(f"an example has the label {min(unknown)!r}, which is none of the classes")
        return self

    @property
    def reader(self) -> ItemReader:
        """How items are read."""
        examples = [example.model_dump() for example in self.examples]
        return ItemReader(self.template, self.view, self.chat_template_kwargs, examples)

    @property
    def head(self) -> Head:
        """One output for each class; the configuration names them."""
        names = dict(enumerate(self.classes))
        config = {"id2label": names, "label2id": {name: i for i, name in names.items()}, CONFIG: self.reader.config()}
        return Head(
            CLASS_HEAD.auto_class,
            CLASS_HEAD.peft_task,
            CLASS_HEAD.pipeline_tag,
            labels=len(self.classes),
            config=config,
            chats=self.template == "chat",
        )

    @property
    def trains_head_alone(self) -> bool:
        """Whether everything but the head stays as it is."""
        return self.train_only == "head"

    @property
    def objective(self) -> LabelLoss:
        """The loss with its constants."""
        return LabelLoss(self.loss, self.student_power, self.label_power, self.radius, self.prior)

    def advice(self) -> list[str]:
        """Return sentences about options that do nothing with this loss."""
        idle = {"alpha": BLENDED, "alpha_warmup": BLENDED, "alpha_schedule": BLENDED, "prior": ("logconf",)}
        idle |= {"student_power": ("product",), "label_power": ("product",), "radius": ("window",)}
        defaults = type(self).model_fields
        changed = [name for name in idle if getattr(self, name) != defaults[name].default]  # a step sets every field
        unused = [name for name in changed if self.loss not in idle[name]]
        return [f"{', '.join(unused)} changes nothing with loss {self.loss}."] if unused else []


def padding_token(tokenizer: Any) -> str:
    """Return the token that fills up batches of items.

    The class is read at the last token that is not this one: no item may end in it, its other tokens may be it.
    """
    named = [token for token in tokenizer.get_added_vocab() if "pad" in token.lower()]
    return str(next(token for token in (tokenizer.pad_token, *named, tokenizer.eos_token) if token is not None))


def _complete(rows: Rows, settings: ClassifierSettings, seed: int) -> ClassifierSettings:
    """Draw the examples that stand before every item.

    Raises:
        UserError: There are fewer items with a label.
    """
    if not settings.shots or settings.examples:
        return settings
    from w2s_align.training.formats import read_rows, sources_of

    labeled = [
        Example(text=item_text(row["prompt"]), label=settings.classes[target.index(max(target))])
        for source in sources_of(rows)
        for batch in read_rows(source, ("label",))
        for row in batch
        if row["prompt"] and (target := _target(row, settings)) is not None
    ]
    if len(labeled) <= settings.shots:
        raise UserError(
            f"shots is {settings.shots}, and there are {len(labeled):,} items with a label.",
            "Examples are left out of the training.",
            "Lower shots, or give more items.",
        )
    return settings.model_copy(update={"examples": random.Random(seed).sample(labeled, settings.shots)})


def _check_examples(encoder: ChatEncoder, settings: ClassifierSettings) -> None:
    """Refuse examples that leave no room for an item."""
    (ids,) = settings.reader.ids(encoder.tokenizer, [[{"role": "user", "content": ""}]])
    if settings.examples and settings.max_length is not None and len(ids) >= settings.max_length:
        raise UserError(
            f"The {len(settings.examples)} examples before an item take {len(ids):,} tokens; max_length is "
            f"{settings.max_length:,}.",
            "No item fits beside them.",
            "Lower shots, or raise max_length up to the model's context.",
        )


def _prepare(rows: Rows, encoder: ChatEncoder, settings: ClassifierSettings, folder: Path, seed: int) -> TrainingData:
    import pyarrow as pa

    from w2s_align.training.arrow_file import store_rows
    from w2s_align.training.data import TOKENS
    from w2s_align.training.tokens import Answer

    # The tokenizer is the start model's own object: the saved model tells its padding token by it.
    encoder.tokenizer.pad_token = padding_token(encoder.tokenizer)
    pad, reader = encoder.tokenizer.pad_token_id, settings.reader
    _check_examples(encoder, settings)
    shown = {example.text for example in settings.examples}
    targets = ["labels", *(["gold"] if settings.diagnostic else [])]
    schema = pa.schema([("input_ids", TOKENS), *((name, pa.list_(pa.float64())) for name in targets)])
    shares, gold = [0] * len(settings.classes), False

    def convert(batch: list[dict[str, Any]], table: RowCollector) -> list[dict[str, Any]]:
        nonlocal gold
        gold = gold or "target" not in batch[0]
        asked = [row for row in batch if row["prompt"]]
        if len(asked) < len(batch):
            table.dropped["incomplete"] += len(batch) - len(asked)
        if shown:
            rest = [row for row in asked if item_text(row["prompt"]) not in shown]
            table.dropped["used_as_example"] += len(asked) - len(rest)
            asked = rest
        kept = []
        for row, ids in zip(asked, reader.ids(encoder.tokenizer, [row["prompt"] for row in asked]), strict=True):
            target, truth = _target(row, settings), _gold(row, settings)
            if target is None:
                table.dropped["without_label"] += 1
            elif settings.diagnostic and truth is None:
                table.dropped["without_gold_answer"] += 1
            elif ids[-1] == pad:
                table.dropped["ends_in_padding_token"] += 1
            elif table.keep({"label": Answer(ids, len(ids) - 1)}):
                shares[target.index(max(target))] += 1
                kept.append({"input_ids": ids, "labels": target, **({"gold": truth} if settings.diagnostic else {})})
        return kept

    data = store_rows(rows, schema, ("label",), convert, encoder, settings, folder, classes=settings.classes)
    data.counts.by_class.update(zip(settings.classes, shares, strict=True))
    missing = [name for name, count in data.counts.by_class.items() if not count]
    if missing and gold:
        raise UserError(
            f"None of the {data.rows:,} items is of the class {', '.join(missing)}.",
            f"The classes are {', '.join(settings.classes)}; there is nothing to tell them apart by.",
            "Give items of every class, or leave the class out of classes.",
        )
    if missing:
        data.notes.append(f"No item is most probably of the class {', '.join(missing)}: there is little to learn.")
    if settings.diagnostic:
        data.notes.append(
            "diagnostic: held-out items are measured against gold answers; this is no label-free student."
        )
    return data


def _target(row: dict[str, Any], settings: ClassifierSettings) -> list[float] | None:
    """Return the label of a row as a distribution over the classes; None where it has none."""
    classes = settings.classes
    if "target" in row:
        target = row["target"]
        if target is None:
            return None
        if len(target) != len(classes) or min(target) < 0 or abs(sum(target) - 1) > 1e-3:
            raise UserError(
                f"A target of the data is {target}.",
                f"It must have one probability for each of the classes {', '.join(classes)}, together 1.",
                "Give probabilities in the order of classes.",
            )
    else:
        if row["label"] is None:
            return None
        target = _certain(row["label"], classes)
    if settings.hard_labels:
        target = [float(place == target.index(max(target))) for place in range(len(target))]
    return [float(p) for p in target]


def _gold(row: dict[str, Any], settings: ClassifierSettings) -> list[float] | None:
    """Return the gold answer of a row as a distribution; None where it has none, or where nobody asked to diagnose."""
    label = row.get("label") if settings.diagnostic else None
    return None if label is None else _certain(label, settings.classes)


def _certain(label: object, classes: Sequence[str]) -> list[float]:
    if str(label) not in classes:
        raise UserError(
            f"The label {label!r} is none of the classes {', '.join(classes)}.",
            fix="Name all classes: classes: [...], as the items have them for answers.",
        )
    return [float(name == str(label)) for name in classes]


def _trainer(plan: TrainingPlan, callbacks: list[Any]) -> Any:
    from transformers import TrainingArguments, set_seed

    from w2s_align.training.label_trainer import LabelTrainer, collate
    from w2s_align.training.new_head import open_classifier

    settings = cast(ClassifierSettings, plan.settings)
    tokenizer = plan.start.tokenizer
    tokenizer.pad_token = padding_token(tokenizer)
    set_seed(plan.seed)  # a new head, and an adapter, begin with drawn weights
    rows, held_out = plan.split()
    if settings.diagnostic and held_out is not None:
        held_out = held_out.remove_columns("labels").rename_column("gold", "labels")
    arguments = build_config(TrainingArguments, plan, remove_unused_columns=False)
    return LabelTrainer(
        settings.objective,
        settings,
        model=open_classifier(plan, settings),
        args=arguments,
        data_collator=collate(tokenizer.pad_token_id),
        train_dataset=rows,
        eval_dataset=held_out,
        processing_class=tokenizer,
        callbacks=callbacks,
    )


METHODS = (
    Method(
        name="classifier",
        title="classification",
        summary="Train a classifier on gold labels, or on the labels of a weaker one.",
        settings=ClassifierSettings,
        prepare=_prepare,
        trainer=_trainer,
        inputs=Inputs("items", ("prompts",), "Items to learn from: prompts; their gold answers are the labels."),
        head=CLASS_HEAD,
        sides=1,
        logits="none",
        library="transformers",
        complete=_complete,
    ),
)
