"""label: a classifier gives each item the probabilities of the classes.

Reads items and a model; writes data/scores.parquet (records.Score): labels for another classifier to learn, or to be
compared with gold answers.
"""

from __future__ import annotations

import shutil
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from w2s_align.artifacts.artifact import Artifact
from w2s_align.artifacts.identity import model_identity, model_name
from w2s_align.errors import UserError
from w2s_align.recipe.schema import ArtifactType, PromptsRef, Reads, Resources
from w2s_align.scoring.elicit import Words, check_words
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class LabelResources(Resources):
    """What labeling may use of the machine."""

    batch_size: int = Field(64, gt=0)
    """Items in a forward pass; changes no label."""


class Label(Step):
    """Label items by a classifier: the probability of each class."""

    kind: Literal["label"] = "label"
    model: Annotated[str, Reads(("model",), literal=True, named=True)]
    """The classifier: $step, a folder, or a hub id; with words, a language model."""
    items: PromptsRef
    """What is labeled. Gold answers are not read."""
    view: str | list[str] | None = None
    """Which view of the items it reads; of several, the mean of its probabilities. Default: the one that it was
    trained on."""
    own_items: Literal["drop", "mark", "refuse"] = "drop"
    """What becomes of items that the model itself was trained on, of which its labels are too good: drop leaves them
    out, mark keeps them and says so (as in bootstrapping, where each model labels the same items), refuse stops."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Number format; auto is float32 on a CPU, else the model's own."""
    revision: str | None = None
    """Revision of a hub model."""
    words: Words | None = None
    """Ask a language model, which nobody has trained on the items, for one of these words: {by_class: {"0": "False",
    "1": "True"}}. A student that learns such labels is the baseline of elicitation without a supervisor."""
    resources: LabelResources = LabelResources()
    """What the step may use of the machine. Default: one GPU."""

    writes: ClassVar[ArtifactType] = "scores"
    uses_seed: ClassVar[bool] = False
    libraries: ClassVar[tuple[str, ...]] = ("torch", "transformers")

    def check(self) -> None:
        """Refuse words that cannot be told apart."""
        if self.words is not None:
            check_words(self.words)

    def content(self) -> dict[str, Any]:
        """Leave out an option that came later where it is not used."""
        content = super().content()
        return {name: value for name, value in content.items() if name != "words" or value is not None}

    def identity(self) -> dict[str, Any]:
        """Return the content of a model that no step made."""
        return {} if self.model.startswith("$") else {"model": model_identity(self.model, self.revision)}

    def claims(self) -> Resources:
        """Take one GPU, unless the recipe says otherwise."""
        gpus = self.resources.gpus
        return Resources(cpus=self.resources.cpus, gpus=1 if gpus is None else gpus)

    def process(self) -> str | None:
        """Share a process with trainings where there is no GPU memory to give back."""
        return "train"

    def run(self, work: Work) -> None:
        """Label, going on from the blocks that an earlier try finished."""
        import pyarrow as pa
        import pyarrow.compute as pc

        from w2s_align.interchange.halves import groups_of
        from w2s_align.scoring.labels import label_items

        items = work.inputs["items"].table()
        trained, groups = trained_items(work.inputs.get("model"))
        own = trained.intersection(items["id"].to_pylist())
        if self.own_items == "refuse":
            related = sum(group in groups for group in groups_of(items))
            if own or related:
                raise overlap(max(len(own), related), items.num_rows, self.model)
        if own and self.own_items == "drop":
            items = items.filter(pc.invert(pc.is_in(items["id"], value_set=pa.array(sorted(own)))))
        if not items.num_rows:
            raise UserError(
                f"{self.model} was trained on all {len(own):,} items that it should label.",
                "Labels of a model's own training items are left out.",
                "Give it the other half, or set own_items: mark.",
            )
        labels = label_items(
            work.model("model", self.model),
            items,
            name=work.sources.get("model", model_name(self.model)),
            views=[self.view] if isinstance(self.view, str) else self.view or (),
            own=own,
            batch_size=self.resources.batch_size,
            dtype=self.dtype,
            revision=self.revision,
            words=self.words,
            folder=work.out / "blocks",
            progress=work.progress,
        )
        work.write(labels, "scores")
        unlabeled = labels["value"].null_count
        dropped = {"trained_on": len(own) if self.own_items == "drop" else 0, "too_long": unlabeled}
        work.counts.update(
            rows_in=work.inputs["items"].table().num_rows,
            kept=labels.num_rows - unlabeled,
            dropped={name: count for name, count in dropped.items() if count},
        )
        shares = pc.value_counts(labels["answer"].drop_null())
        work.result["classes"] = {row["values"]: row["counts"] for row in shares.to_pylist()}
        if own:
            done = "left out" if self.own_items == "drop" else "labeled and marked"
            work.warnings.append(f"{len(own):,} items that the model was trained on are {done}.")
        if unlabeled:
            work.warnings.append(f"{unlabeled:,} items do not fit the model's context and have no label.")
        shutil.rmtree(work.out / "blocks", ignore_errors=True)


def trained_items(model: Artifact | None) -> tuple[set[str], set[str]]:
    """Return ids and groups of all items that a classifier, and those it went on from, were trained on."""
    from w2s_align.interchange.halves import groups_of

    found: set[str] = set()
    groups: set[str] = set()
    while model is not None and model.type == "model":
        inputs = dict(model.inputs())
        for place, artifact in inputs.items():
            if place.partition(".")[0] == "items":
                items = artifact.table()
                found.update(items["id"].to_pylist())
                groups.update(groups_of(items))
        model = inputs.get("model")
    return found, groups


def overlap(count: int, total: int, model: str) -> UserError:
    """Return the error about a test that a model was trained on."""
    return UserError(
        f"{count:,} of the {total:,} test items are, or share a group with, items that {model} was trained on.",
        "What a model has learned from is no test of it.",
        "Take the test from another split, or keep the halves apart from it: apart_from of step half.",
    )
