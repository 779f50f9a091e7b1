"""delta_theory, sections_toy, w2sg_oracle: theory, simulated and checked in about a minute, without a language model.

Write report.html, report.md, report.json and plots/.
"""

from __future__ import annotations

from typing import ClassVar, Literal

from w2s_align.lab.oracle import OracleSettings
from w2s_align.lab.sections import SectionsSettings
from w2s_align.lab.theory_study import TheorySettings
from w2s_align.recipe.schema import ArtifactType, Resources
from w2s_align.steps.step import Step
from w2s_align.steps.work import Work


class DeltaTheory(Step, TheorySettings):
    """Simulate delta learning in logistic regression and check it against its closed form."""

    kind: Literal["delta_theory"] = "delta_theory"
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "report"
    shows_recipe: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def run(self, work: Work) -> None:
        """Simulate, compare, and write the page."""
        from w2s_align.lab.theory_study import study_theory
        from w2s_align.reporting.article import write_article
        from w2s_align.reporting.theory_pages import theory_article

        study = study_theory(self, self.seed or 0, work.progress)
        article = theory_article(work.recipe["name"], study, self, work.recipe["text"])
        write_article(article, work.out)
        work.result["verdict"] = f"{article.headline}. {article.lede}"
        work.counts.update(kept=len(study.checks))
        work.warnings += [f"{check.name}: {check.detail}" for check in study.checks if not check.held]


class SectionsToy(Step, SectionsSettings):
    """Train a one-parameter policy on pairs of section counts, as in the paper's experiment with bold sections."""

    kind: Literal["sections_toy"] = "sections_toy"
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "report"
    uses_seed: ClassVar[bool] = False
    shows_recipe: ClassVar[bool] = True

    def run(self, work: Work) -> None:
        """Train and write the page."""
        from w2s_align.lab.sections import study_sections
        from w2s_align.reporting.article import write_article
        from w2s_align.reporting.theory_pages import sections_article

        paths = study_sections(self)
        article = sections_article(work.recipe["name"], paths, self, work.recipe["text"])
        write_article(article, work.out)
        work.result["verdict"] = f"{article.headline}. {article.lede}"
        work.counts.update(kept=len(paths))


class W2SGOracle(Step, OracleSettings):
    """Teach logistic regressions by a noisy and by a blind supervisor, and see which of their errors are copied."""

    kind: Literal["w2sg_oracle"] = "w2sg_oracle"
    resources: Resources = Resources(cpus=1, gpus=0)
    """What the step may use of the machine."""

    writes: ClassVar[ArtifactType] = "report"
    shows_recipe: ClassVar[bool] = True
    libraries: ClassVar[tuple[str, ...]] = ("numpy",)

    def run(self, work: Work) -> None:
        """Simulate, check, and write the page."""
        from w2s_align.lab.oracle import study_oracle
        from w2s_align.reporting.article import write_article
        from w2s_align.reporting.oracle_page import oracle_article

        study = study_oracle(self, self.seed or 0, work.progress)
        article = oracle_article(work.recipe["name"], study, self, work.recipe["text"])
        write_article(article, work.out)
        work.result["verdict"] = f"{article.headline}. {article.lede}"
        work.counts.update(kept=len(study.checks))
        work.warnings += [f"{check.name}: {check.detail}" for check in study.checks if not check.held]
