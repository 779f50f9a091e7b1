"""The `w2s` command. Every command imports what it needs when it runs, so that `w2s --help` is instant.

A mistake of the user is one panel and exit code 2; a step that broke is the end of its log and exit code 1.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from w2s_align.errors import UserError

if TYPE_CHECKING:
    from w2s_align.machine import Machine
    from w2s_align.recipe import Recipe
    from w2s_align.runs.loaded import LoadedRecipe
    from w2s_align.runs.outcome import Outcome

app = typer.Typer(
    name="w2s",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"w2s-align {version('w2s-align')}")
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    """Weak-to-strong alignment of language models, from prompts to a measured verdict."""


RecipeArgument = Annotated[
    str, typer.Argument(metavar="RECIPE", help="A YAML file, or the name of a shipped recipe (`w2s recipes`).")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[STEP.FIELD=VALUE]...", help="Values to set in the recipe.")
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of runs and artifacts.")]
DEFAULT_RUNS_DIR = Path("w2s_runs")
STOPPED = 130
"""Exit code of a command that was interrupted, as of every program that Ctrl-C ends."""


def _use_data_dir(folder: Path | None) -> Path | None:
    """Let all steps of this command, in processes of their own too, find benchmarks in a mirror folder."""
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"--data-dir: there is no folder {folder}.")
        os.environ["W2S_DATA_DIR"] = str(folder.resolve())
    return folder


DataDir = Annotated[
    Path | None,
    typer.Option("--data-dir", callback=_use_data_dir, help="Mirror of the hub with the data of benchmarks."),
]


@app.command()
def run(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    only: Annotated[
        list[str] | None, typer.Option(help="Make this step, or single artifact, alone; may be given several times.")
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="With --only: of a generation that N machines share, make shard I."),
    ] = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Run a recipe. What is done already is not done again; a killed run goes on from where it was."""
    _execute(_load(recipe, overrides).recipe, runs_dir, only, _fraction(shard) if shard else None)


@app.command()
def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    gpus: Annotated[str | None, typer.Option(help="GPUs to plan for, e.g. 8xH100. Default: this machine's.")] = None,
    price: Annotated[float | None, typer.Option(help="Price of one GPU for an hour, US dollars.", min=0)] = None,
    every: Annotated[bool, typer.Option("--all", help="A line for each artifact that an evaluation implies.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Count tokens of data that is there, exactly.")] = False,
    data_dir: DataDir = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Show what would run and what is there already: rows, tokens, memory, time and cost, without running anything."""
    from w2s_align.artifacts.store import Store
    from w2s_align.estimates.estimate import estimate
    from w2s_align.estimates.gpus import hardware
    from w2s_align.terminal.plan_view import plan_view
    from w2s_align.terminal.progress import print_rich

    loaded, machine = _load(recipe, overrides), hardware(gpus, price)
    planned = loaded.plan(runs_dir)
    costs = estimate(planned, Store(runs_dir), machine, count=count)
    print_rich(plan_view(loaded.recipe, planned, costs, every=every))


@app.command()
def rehearse(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE]... [STEP.FIELD=VALUE]...", help="Recipes, and values to set in them."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Rehearse all shipped recipes with models of the hub.")] = False,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder of rehearsals.")] = Path("w2s_runs/rehearsals"),
) -> None:
    """Run whole recipes here, in minutes, with tiny stand-ins for their models and a few rows."""
    from w2s_align.artifacts.store import Store
    from w2s_align.recipe import apply_overrides, read_document
    from w2s_align.rehearsal.rehearse import machine_of_rehearsals, rehearsal, summary
    from w2s_align.runs.run_many import qualified_name, run_many
    from w2s_align.terminal.catalogue import find_recipe, shipped_recipes
    from w2s_align.terminal.progress import Display, print_rich

    given = [text for text in recipes or [] if "=" not in text]
    named = given or (list(shipped_recipes()) if every else [])
    if not named:
        raise UserError("Which recipe?", fix="Name one or several, or give --all. `w2s recipes` lists them.")
    documents = [read_document(find_recipe(name)) for name in named]
    for document in documents:
        apply_overrides(document, [text for text in recipes or [] if "=" in text])
    rehearsed = [rehearsal(document, runs_dir / "rows") for document in documents]
    if not given:  # the others run on a laptop as they are
        rehearsed = [item for item in rehearsed if item.models]
    if len(rehearsed) == 1:
        _execute(rehearsed[0].recipe, runs_dir, machine=machine_of_rehearsals())
        print_rich(summary(rehearsed))
        return
    together = [item.recipe for item in rehearsed]
    with Display(qualified_name(recipe, node) for recipe in together for node in recipe.nodes) as display:
        runs, outcome = run_many(together, Store(runs_dir), machine_of_rehearsals(), display.on_event)
    display.summary_together(runs, outcome)
    print_rich(summary(rehearsed))
    _exit(outcome)


@app.command()
def launch(
    where: Annotated[str, typer.Argument(metavar="WHERE", help="The kind of cluster: slurm or ray.")],
    recipe: RecipeArgument,
    overrides: Overrides = None,
    nodes: Annotated[int, typer.Option(help="Machines that share a generation or a training.", min=1)] = 1,
    cpus: Annotated[int, typer.Option(help="Cores of a job.", min=1)] = 16,
    address: Annotated[
        str | None, typer.Option(help="Ray: host:port of the head node. Default: RAY_ADDRESS, else auto.")
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(help="Slurm: GPUs of a machine.", min=0)] = 8,
    partition: Annotated[str | None, typer.Option(help="Slurm: partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm: account.")] = None,
    time: Annotated[str, typer.Option(help="Slurm: time limit of a job.")] = "24:00:00",
    setup: Annotated[list[str] | None, typer.Option(help="Slurm: command before each job; may be repeated.")] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Slurm: hand the jobs in.")] = False,
    data_dir: DataDir = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Run a recipe on a cluster whose machines share --runs-dir: a job for each step, each after those that it reads.

    Slurm: write the job scripts, or hand them in. Ray: run here until all is done, tasks on the cluster's machines; to
    leave it alone, `ray job submit -- w2s launch ray ...`. `w2s show RECIPE` watches from any machine.
    """
    from w2s_align.cluster.slurm import Cluster, write_jobs
    from w2s_align.cluster.slurm import submit as hand_in
    from w2s_align.terminal.catalogue import find_recipe

    if where not in ("slurm", "ray"):
        raise UserError(f"{where} is no kind of cluster that recipes are launched on.", fix="slurm or ray")
    loaded = _load(recipe, overrides)
    if where == "ray":
        if partition or account or setup or submit:
            raise UserError("--partition, --account, --setup and --submit are for slurm.", fix="Leave them out.")
        _launch_on_ray(loaded, overrides or [], runs_dir, nodes, cpus, address)
        return
    cluster = Cluster(nodes, gpus_per_node, cpus, partition, account, time, setup=setup or ())
    command = [str(find_recipe(recipe).absolute()), *(overrides or [])]
    folder = write_jobs(loaded.recipe, loaded.plan(runs_dir), command, runs_dir.absolute(), cluster)
    if not submit:
        typer.echo(f"The jobs are in {folder}.  Next: bash {folder / 'submit.sh'}")
        return
    for line in hand_in(folder):
        typer.echo(line)
    typer.echo(f"Logs: {folder}.  The same command again makes what is missing.")


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
    from w2s_align.terminal.show import show_target

    show_target(target, runs_dir, start, rows)


@app.command()
def steps(kind: Annotated[str | None, typer.Argument(help="Show the options of this kind.")] = None) -> None:
    """List the kinds of steps: what each reads, writes and takes."""
    from w2s_align.terminal.catalogue import kind_options, kinds_table
    from w2s_align.terminal.progress import print_rich

    print_rich(kinds_table() if kind is None else kind_options(kind))


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from w2s_align.terminal.catalogue import recipes_table
    from w2s_align.terminal.progress import print_rich

    print_rich(recipes_table())


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of your recipe; it is written to NAME.yaml.")],
    source: Annotated[str, typer.Option("--from", help="The recipe to start from.")] = "quickstart",
) -> None:
    """Start a recipe of your own from a shipped one."""
    from w2s_align.terminal.catalogue import copy_recipe

    path = copy_recipe(name, source)
    typer.echo(f"{path} is yours to edit.  Next: w2s plan {path}")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for completion in an editor."""
    import json

    from w2s_align.terminal.catalogue import recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=1))


@app.command()
def report(
    target: Annotated[str, typer.Argument(help="A run's folder, or a recipe's name for its latest run.")],
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Print the verdict of a run, its table of arms, and where its page is."""
    from w2s_align.terminal.show import show_report

    show_report(target, runs_dir)


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(metavar="RUN RUN...", help="Recipe names, <recipe>/<run id>, or folders of runs.")
    ],
    step: Annotated[str | None, typer.Option(help="Name of the evaluation, where a recipe has several.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the page. Default: <runs-dir>/compare/<runs>.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON alone.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Say what differed between runs, and what that did to the numbers, with paired tests."""
    from w2s_align.terminal.show import show_comparison

    show_comparison(runs, runs_dir, step, out, as_json)


@app.command()
def sweep(
    recipe: RecipeArgument,
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STEP.FIELD=A,B,C]...", help="Options to sweep; one value is set at every point."),
    ] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="First values together, then second ones; no grid.")
    ] = False,
    file: Annotated[Path | None, typer.Option(help="YAML list of points: - {dpo.beta: 5, ...}.")] = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Run a recipe once for each combination of values, sharing artifacts; a table, a plot and the best at the end."""
    from w2s_align.recipe.sweep import sweep_points
    from w2s_align.terminal.catalogue import find_recipe
    from w2s_align.terminal.show import show_sweep
    from w2s_align.terminal.sweep import load_sweep

    points, overrides = sweep_points(values or [], file, paired=paired)
    show_sweep(load_sweep(find_recipe(recipe), points, overrides), runs_dir)


@app.command()
def doctor(runs_dir: RunsDir = DEFAULT_RUNS_DIR) -> None:
    """Check this machine: packages, GPUs, memory, disk, hub access, and what to do about what is found."""
    from w2s_align.terminal.doctor import examine, findings_table
    from w2s_align.terminal.progress import print_rich

    findings = examine(runs_dir)
    print_rich(findings_table(findings))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


def _fraction(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise UserError(f"--shard {text} is no shard.", fix="Write its number and how many there are, e.g. 2/4.")
    return int(number), int(count)


def _execute(
    recipe: Recipe,
    runs_dir: Path,
    only: list[str] | None = None,
    part: tuple[int, int] | None = None,
    machine: Machine | None = None,
) -> None:
    from w2s_align.artifacts.store import Store
    from w2s_align.machine import this_machine
    from w2s_align.runs.execute import execute
    from w2s_align.terminal.progress import Display

    with Display(recipe.nodes) as display:
        result, outcome = execute(recipe, Store(runs_dir), machine or this_machine(), display.on_event, only, part)
    display.summary(result, outcome)
    _exit(outcome)


def _launch_on_ray(
    loaded: LoadedRecipe, overrides: list[str], runs_dir: Path, nodes: int, cpus: int, address: str | None
) -> None:
    from w2s_align.cluster.ray import launch_on_ray
    from w2s_align.terminal.progress import Display

    with Display(loaded.recipe.nodes) as display:
        result, outcome = launch_on_ray(loaded.recipe, overrides, runs_dir, display.on_event, nodes, cpus, address)
    display.summary(result, outcome)
    _exit(outcome)


def _exit(outcome: Outcome) -> None:
    refused = UserError.all(outcome.problems) if outcome.problems else None
    if outcome.crashes:
        if refused is not None:  # a step that broke must not hide why others were refused
            show_error(refused)
        raise typer.Exit(1)
    if refused is not None:
        raise refused


def _load(recipe: str, overrides: list[str] | None) -> LoadedRecipe:
    from w2s_align.runs.loaded import load_recipe
    from w2s_align.terminal.catalogue import find_recipe

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
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers and containers stop a run as Ctrl-C does
    code: object = STOPPED
    try:
        code = app(standalone_mode=False)  # typer.Exit comes back as its code, and so does a Ctrl-C
    except UserError as error:
        show_error(error)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        pass
    except Exception as error:
        _show_usage_error(error)
    if code == STOPPED:
        typer.echo("Stopped. Run the same command again to go on.", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _show_usage_error(error: Exception) -> None:
    """Show a wrong command line as click does; anything else is a bug and keeps its traceback."""
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()
    sys.exit(getattr(error, "exit_code", 2))


if __name__ == "__main__":
    main()
