"""The `w2s` command. Every command imports what it needs when it runs, so that `w2s --help` is instant.

A mistake of the user is one panel and exit code 2; a step that broke is the end of its log and exit code 1.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from w2s_align.errors import UserError

if TYPE_CHECKING:
    from w2s_align.runs.run import LoadedRecipe

app = typer.Typer(
    name="w2s",
    help="Weak-to-strong alignment of language models, from prompts to a measured verdict.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe (`w2s recipes`).")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[STEP.FIELD=VALUE]...", help="Values to set in the recipe.")
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of runs and artifacts.")]
DEFAULT_RUNS_DIR = Path("w2s_runs")


@app.command()
def run(recipe: RecipeArgument, overrides: Overrides = None, runs_dir: RunsDir = DEFAULT_RUNS_DIR) -> None:
    """Run a recipe. What is done already is not done again; a killed run goes on from where it was."""
    from w2s_align.runs.display import Display
    from w2s_align.runs.machine import this_machine
    from w2s_align.runs.run import execute
    from w2s_align.runs.store import Store

    loaded = _load(recipe, overrides)
    with Display(loaded.recipe) as display:
        result, outcome = execute(loaded.recipe, Store(runs_dir), this_machine(), display.on_event)
    display.summary(result, outcome)
    if outcome.crashes:
        raise typer.Exit(1)
    if outcome.problems:
        raise UserError.all(outcome.problems)


@app.command()
def plan(recipe: RecipeArgument, overrides: Overrides = None, runs_dir: RunsDir = DEFAULT_RUNS_DIR) -> None:
    """Show what would run and what is there already, without running anything."""
    from w2s_align.runs.display import plan_table, print_rich

    loaded = _load(recipe, overrides)
    print_rich(plan_table(loaded.recipe, loaded.plan(runs_dir), runs_dir))


@app.command()
def show(
    target: Annotated[
        str, typer.Argument(help="An artifact's or a run's folder, RECIPE, or RECIPE/STEP (latest run).")
    ],
    rows: Annotated[int, typer.Option(help="Rows to show.", min=1)] = 5,
    start: Annotated[int, typer.Option(help="First row to show.", min=0)] = 0,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Browse a run, or the prompts, responses, scores, pairs, model or results of one of its steps."""
    from w2s_align.runs.show import show_target

    show_target(target, runs_dir, start, rows)


@app.command()
def steps(kind: Annotated[str | None, typer.Argument(help="Show the options of this kind.")] = None) -> None:
    """List the kinds of steps: what each reads, writes and takes."""
    from w2s_align.runs.catalogue import kind_table, kinds_table
    from w2s_align.runs.display import print_rich

    print_rich(kinds_table() if kind is None else kind_table(kind))


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from w2s_align.runs.catalogue import recipes_table
    from w2s_align.runs.display import print_rich

    print_rich(recipes_table())


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of your recipe; it is written to NAME.yaml.")],
    source: Annotated[str, typer.Option("--from", help="The recipe to start from.")] = "quickstart",
) -> None:
    """Start a recipe of your own from a shipped one."""
    from w2s_align.runs.catalogue import copy_recipe

    path = copy_recipe(name, source)
    typer.echo(f"{path} is yours to edit.  Next: w2s plan {path}")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for completion in an editor."""
    import json

    from w2s_align.runs.catalogue import recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=1))


@app.command()
def report(
    target: Annotated[str, typer.Argument(help="A run's folder, or a recipe's name for its latest run.")],
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Print the verdict of a run, its table of arms, and where its page is."""
    from w2s_align.runs.show import show_report

    show_report(target, runs_dir)


@app.command()
def doctor(runs_dir: RunsDir = DEFAULT_RUNS_DIR) -> None:
    """Check this machine: packages, GPUs, memory, disk, hub access, and what to do about what is found."""
    from w2s_align.runs.display import print_rich
    from w2s_align.runs.doctor import examine

    marks = {"ok": "[green]ok     [/]", "note": "[yellow]note   [/]", "problem": "[red]problem[/]"}
    findings = examine(runs_dir)
    for finding in findings:
        print_rich(f"{marks[finding.level]}  {finding.what}" + (f"\n         -> {finding.fix}" if finding.fix else ""))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


def _load(recipe: str, overrides: list[str] | None) -> LoadedRecipe:
    from w2s_align.runs.catalogue import find_recipe
    from w2s_align.runs.run import load_recipe

    return load_recipe(find_recipe(recipe), overrides or [])


def show_error(error: UserError) -> None:
    """Show what is wrong, all of it at once, on standard error."""
    from rich.console import Console
    from rich.panel import Panel
    from rich.text import Text

    text = Text()
    for index, problem in enumerate(error.problems):
        text.append("\n\n" if index else "")
        text.append(f"{problem.where}  " if problem.where else "", style="dim")
        text.append(" ".join(part for part in (problem.what, problem.why) if part))
        text.append(f"\n  {problem.fix}" if problem.fix else "", style="bold")
    Console(stderr=True, soft_wrap=False).print(Panel(text, border_style="red", title="w2s", title_align="left"))


def main() -> None:
    """Entry point of the `w2s` command."""
    try:
        app(standalone_mode=False)
    except UserError as error:
        show_error(error)
        sys.exit(2)
    except typer.Exit as error:
        sys.exit(error.exit_code)
    except typer.Abort:
        sys.exit(130)
    except KeyboardInterrupt:
        typer.echo("Stopped. Run the same command again to go on.", err=True)
        sys.exit(130)
    except Exception as error:
        _show_usage_error(error)


def _show_usage_error(error: Exception) -> None:
    """Show a wrong command line as click does; anything else is a bug and keeps its traceback."""
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    sys.exit(getattr(error, "exit_code", 2))


if __name__ == "__main__":
    main()
