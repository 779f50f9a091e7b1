"""pair: preference pairs with a known delta, from the responses of a weak and a weaker model, or from scores.

Reads responses (and the prompts behind them), scores where the rule needs them, prompts of evaluation sets to keep
out; writes the files of an artifact of pairs (see pair_files.py). The rules, their options and what they read are
those of ``w2s_align.pairing.RULES``: each is declared in its own file there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, create_model
from pydantic.fields import FieldInfo

from w2s_align.errors import UserError
from w2s_align.pairing import RULES, Control, Filters, Rule
from w2s_align.pairing.rule import Input
from w2s_align.pairing.weights import Weights, weigh
from w2s_align.recipe.schema import ArtifactType, Resources, ResponsesRef, ScoresRef
from w2s_align.records import own_docstring
from w2s_align.steps.pair_files import LICENSE_OPTIONS, EvaluationRef, evaluation_items, write_pairs
from w2s_align.steps.step import Step
from w2s_align.steps.tables import join_tables, prompts_behind
from w2s_align.steps.work import Work

if TYPE_CHECKING:
    import pyarrow as pa

    from w2s_align.pairing import Pairs


class _PairStep(Step):
    """Build preference pairs by a rule, and say how large and how clean the delta is."""

    kind: Literal["pair"] = "pair"
    if TYPE_CHECKING:
        rule: str
    gold: list[ScoresRef] = []
    """Scores against gold answers, for the audit alone: the pairs are the same without them."""
    control: Control = "none"
    """reversed: chosen and rejected swapped. tied: both sides of equal quality. shuffled: labels by coin."""
    filters: Filters = Filters()
    """What is dropped."""
    decontaminate: list[EvaluationRef] = []
    """Prompts of evaluation sets: pairs of prompts that contain more than half the words of an item, in runs of 8
    words (the rule of Tülu 3), are dropped. Where a language has no spaces (Chinese, Japanese, Thai, Lao, Khmer,
    Burmese), each letter is a word; inflected forms and translations are not recognized in any language."""
    pairs_per_prompt: int = Field(1, ge=1)
    """At most this many pairs of one prompt."""
    weights: Weights = "none"
    """What each pair weighs in the loss of dpo, simpo, cpo and reward, from its scores. confidence: 2 (sigmoid of
    their difference - 1/2), of a reward model (CW-PO, arXiv 2603.04968). preference: the probability that the chosen
    one is the better one, of scores that are probabilities (rule posterior)."""
    license: str | None = None
    """License of the pairs, for the dataset card; the generators' licenses decide."""
    generator_licenses: dict[str, str] = {}
    """License of models that wrote responses, by name, for audit and dataset card. Default: what their cards say."""
    resources: Resources = Resources(gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "pairs"
    version: ClassVar[int] = 4
    renamed: ClassVar[Mapping[str, str]] = LICENSE_OPTIONS
    rules: ClassVar[Mapping[str, type[Rule]]] = {}
    """The rules that there are, by name."""

    def content(self) -> dict[str, Any]:
        """Leave out what the rule does not read or take: another rule, or a new one, does not change its key."""
        rule = self.rules[self.rule]
        own = {*rule.model_fields, *(read.name for read in rule.inputs)}
        own -= {name for name in rule.newer if getattr(self, name) == rule.model_fields[name].default}
        others = {*_options(self.rules), *_inputs(self.rules)} - own
        if self.weights == "none":  # an option that came later: what was made without it stays valid
            others.add("weights")
        content = {name: value for name, value in super().content().items() if name not in others}
        if not self.filters.balance_lengths:  # this one as well
            content["filters"] = {k: v for k, v in content["filters"].items() if k != "balance_lengths"}
        return content

    def check(self) -> None:
        """Refuse a rule without its inputs, and inputs and options that the rule does not have."""
        rule = self.rules[self.rule]
        needed = [each.name for each in rule.inputs]
        for name in needed:
            if not getattr(self, name):
                raise UserError(f"The rule {self.rule} needs {name}.", fix=f"Add {name}: $step")
        for name in _inputs(self.rules):
            if name not in needed and getattr(self, name):
                raise UserError(f"The rule {self.rule} does not read {name}.", fix=f"It reads {' and '.join(needed)}.")
        for name, owners in sorted(_options(self.rules).items()):
            if self.rule not in owners and getattr(self, name) != type(self).model_fields[name].default:
                raise UserError(
                    f"The rule {self.rule} does not take {name}.", fix=f"It belongs to {', '.join(owners)}."
                )
        self._rule()

    def _rule(self) -> Rule:
        rule = self.rules[self.rule]
        return rule.of(**{name: getattr(self, name) for name in rule.model_fields})

    def process(self) -> str | None:
        """Share a process with other steps that only handle rows: starting one takes longer than a small table."""
        return "rows"

    def run(self, work: Work) -> None:
        """Build, audit and write the pairs."""
        gold = [work.inputs[f"gold.{index}"].table() for index in range(len(self.gold))]
        pairs = self._build(work)
        write_pairs(
            work,
            replace(pairs, table=weigh(pairs.table, self.weights)),
            gold=join_tables(gold) if gold else None,
            license=self.license,
            generator_licenses=self.generator_licenses,
        )

    def _build(self, work: Work) -> Pairs:
        rule = self._rule()
        behind = [
            work.inputs[place] for each in rule.inputs if each.holds == "responses" for place in self._places(each)
        ]
        return rule.make(
            [self._table(work, each) for each in rule.inputs],
            prompts_behind(behind),
            {
                "filters": self.filters,
                "control": self.control,
                "pairs_per_prompt": self.pairs_per_prompt,
                "seed": self.seed or 0,
                "evaluations": evaluation_items(work, "decontaminate", len(self.decontaminate)),
            },
        )

    def _places(self, read: Input) -> list[str]:
        """Return the places in ``work.inputs`` that an input of the rule stands for."""
        return [f"{read.name}.{i}" for i in range(len(getattr(self, read.name)))] if read.many else [read.name]

    def _table(self, work: Work, read: Input) -> pa.Table:
        """Return the rows of an input of the rule.

        Raises:
            UserError: The rule reads verdicts, and scores are not those of a judge.
        """
        tables = []
        for place in self._places(read):
            artifact = work.inputs[place]
            if read.holds == "verdicts" and artifact.kind != "judge":
                raise UserError(
                    f"The rule {self.rule} reads verdicts, and ${work.sources[place]} is a step of kind "
                    f"{artifact.kind}.",
                    fix="Name a step of kind judge with mode: pairwise, or use the rule best_worst.",
                )
            tables.append(artifact.table("verdicts") if read.holds == "verdicts" else artifact.table())
        return join_tables(tables)


def pair_step(rules: Mapping[str, type[Rule]]) -> type[_PairStep]:
    """Return the ``pair`` step for some rules: its options are those that all rules share, and theirs.

    Args:
        rules: The rules by name.

    Raises:
        TypeError: Two rules have an option of the same name with another type or default.
    """
    fields: dict[str, Any] = {"rule": (Literal[tuple(rules)], Field(description=_rules_help(rules)))}
    for name, read in _inputs(rules).items():
        reference = ResponsesRef if read.holds == "responses" else ScoresRef
        fields[name] = (
            (list[reference], Field([], description=read.help))  # type: ignore[valid-type]
            if read.many
            else (reference | None, Field(None, description=read.help))
        )
    for name, owners in _options(rules).items():
        info = _shared_field(name, [rules[owner] for owner in owners])
        described = f"{(info.description or '').removesuffix('.')} ({', '.join(owners)})."
        fields[name] = (info.annotation, FieldInfo.merge_field_infos(info, description=described))
    # Fields of the last base come first: a rule and what it reads before what all rules share.
    make: Any = create_model
    own = make("_RuleOptions", __base__=Step, **fields)
    step: type[_PairStep] = make(
        "PairStep", __base__=(_PairStep, own), __module__=__name__, __doc__=own_docstring(_PairStep)
    )
    step.rules = rules
    return step


def _inputs(rules: Mapping[str, type[Rule]]) -> dict[str, Input]:
    """Return what the rules read, each field once; of several rules that read it the first describes it."""
    found: dict[str, Input] = {}
    for rule in rules.values():
        for read in rule.inputs:
            found.setdefault(read.name, read)
    return found


def _options(rules: Mapping[str, type[Rule]]) -> dict[str, list[str]]:
    """Return the options that only some rules take, with the names of these rules."""
    found: dict[str, list[str]] = {}
    for rule in rules.values():
        for name in rule.model_fields:
            found.setdefault(name, []).append(rule.name)
    return found


def _shared_field(name: str, owners: list[type[Rule]]) -> FieldInfo:
    first = owners[0].model_fields[name]
    for owner in owners[1:]:
        other = owner.model_fields[name]
        if (first.annotation, first.default, first.metadata) != (other.annotation, other.default, other.metadata):
            raise TypeError(f"the rules {owners[0].name} and {owner.name} declare the option {name} differently")
    return first


def _rules_help(rules: Mapping[str, type[Rule]]) -> str:
    """Return the help of the option ``rule``: for each set of inputs its rules, with what they say of themselves."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for rule in rules.values():
        names = tuple(read.name for read in rule.inputs)
        groups.setdefault(names, []).append(f"{rule.name}, {own_docstring(rule)}")
    return " ".join(f"From {' and '.join(names)}: {'; '.join(lines)}." for names, lines in groups.items())


PairStep = pair_step(RULES)
