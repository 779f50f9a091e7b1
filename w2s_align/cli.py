"""The `w2s` command. Every command imports what it needs when it runs, so that `w2s --help` is instant.

A mistake of the user is one panel and exit code 2; a step that crashed is the end of its log and exit code 1.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from w2s_align.errors import UserError, did_you_mean
from w2s_align.terminal.completion import kinds, recipes_and_files, runs_and_steps, steps_of

if TYPE_CHECKING:
    from w2s_align.runs.loaded import LoadedRecipe

app = typer.Typer(
    name="w2s",
    no_args_is_help=True,
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
    str,
    typer.Argument(
        metavar="RECIPE",
        help="A YAML file, or the name of a shipped recipe (`w2s recipes`).",
        autocompletion=recipes_and_files,
    ),
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[STEP.FIELD=VALUE]...", help="Values to set in the recipe.")
]
RunsDir = Annotated[Path, typer.Option("--runs-dir", help="Folder of runs and artifacts.")]
DEFAULT_RUNS_DIR = Path("w2s_runs")
STOPPED = 130
"""Exit code of a command that was interrupted, as of every program that Ctrl-C ends."""


def _use_data_dir(folder: Path | None) -> Path | None:
    """Let every step, also in a process of its own, find the data of benchmarks in a mirror folder."""
    if folder is not None:
        if not folder.is_dir():
            raise UserError(f"--data-dir: no such folder: {folder}.")
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
        list[str] | None, typer.Option(help="Run only this step or node; may be repeated.", autocompletion=steps_of)
    ] = None,
    until: Annotated[
        list[str] | None,
        typer.Option(help="Run this step or node and everything it reads; may be repeated.", autocompletion=steps_of),
    ] = None,
    shard: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="With --only: make shard I of a generation that N machines share."),
    ] = None,
    data_dir: DataDir = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Run a recipe. Finished steps are not repeated; a run that was killed resumes where it stopped."""
    from w2s_align.terminal.execute import run_here

    if only and until:
        raise UserError("--only and --until are given.", fix="Use --until alone: it makes what its steps read.")
    part = _fraction(shard) if shard else None
    loaded = _load(recipe, overrides)
    raise typer.Exit(run_here(loaded.recipe, runs_dir, only or until, part, with_inputs=bool(until)))


@app.command()
def plan(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    gpus: Annotated[str | None, typer.Option(help="GPUs to plan for, e.g. 8xH100. Default: this machine's.")] = None,
    price: Annotated[float | None, typer.Option(help="Price of a GPU-hour in US dollars.", min=0)] = None,
    every: Annotated[bool, typer.Option("--all", help="List every artifact, implied ones too.")] = False,
    count: Annotated[bool, typer.Option("--count", help="Count the tokens of cached data.")] = False,
    data_dir: DataDir = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Show what would run and what is cached, with rows, tokens, memory, time and cost. Runs nothing."""
    from w2s_align.artifacts.store import Store
    from w2s_align.estimates.estimate import estimate
    from w2s_align.estimates.gpus import hardware
    from w2s_align.terminal.console import open_console
    from w2s_align.terminal.plan_view import plan_view
    from w2s_align.terminal.progress import print_rich

    loaded, machine = _load(recipe, overrides), hardware(gpus, price)
    planned = loaded.plan(runs_dir)
    costs = estimate(planned, Store(runs_dir), machine, count=count)
    print_rich(plan_view(loaded.recipe, planned, costs, every=every, width=open_console().width))


@app.command()
def rehearse(
    recipes: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE]... [STEP.FIELD=VALUE]...", help="Recipes, and values to set in them."),
    ] = None,
    every: Annotated[bool, typer.Option("--all", help="Rehearse all shipped recipes that use hub models.")] = False,
    runs_dir: Annotated[Path, typer.Option("--runs-dir", help="Folder of rehearsals.")] = Path("w2s_runs/rehearsals"),
) -> None:
    """Run whole recipes on this machine in minutes, with tiny stand-in models and a few rows."""
    from w2s_align.terminal.execute import run_rehearsals

    raise typer.Exit(run_rehearsals(recipes or [], every, runs_dir))


@app.command()
def launch(
    where: Annotated[str, typer.Argument(metavar="WHERE", help="slurm or ray.")],
    recipe: RecipeArgument,
    overrides: Overrides = None,
    nodes: Annotated[int, typer.Option(help="Machines that share a generation or a training.", min=1)] = 1,
    cpus: Annotated[int, typer.Option(help="CPU cores per job.", min=1)] = 16,
    address: Annotated[
        str | None, typer.Option(help="Ray: host:port of the head node. Default: RAY_ADDRESS, else auto.")
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(help="Slurm: GPUs per machine.", min=0)] = 8,
    partition: Annotated[str | None, typer.Option(help="Slurm: partition.")] = None,
    account: Annotated[str | None, typer.Option(help="Slurm: account.")] = None,
    time: Annotated[str, typer.Option(help="Slurm: time limit per job.")] = "24:00:00",
    setup: Annotated[
        list[str] | None, typer.Option(help="Slurm: command or file before each job, repeatable.")
    ] = None,
    submit: Annotated[bool, typer.Option("--submit", help="Slurm: submit the jobs.")] = False,
    data_dir: DataDir = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Run a recipe on a cluster whose machines share --runs-dir: one job per step, submitted with its dependencies.

    Slurm: write the job scripts, or submit them. Ray: run tasks on the machines of the cluster until everything is
    done; to leave it running, use `ray job submit -- w2s launch ray ...`. `w2s show RECIPE` shows the progress from
    any machine.
    """
    from w2s_align.cluster import slurm
    from w2s_align.terminal.catalogue import find_recipe
    from w2s_align.terminal.execute import run_on_ray

    if where not in ("slurm", "ray"):
        raise UserError(f"{where} is not a supported cluster.", fix=did_you_mean(where, ("slurm", "ray")))
    loaded = _load(recipe, overrides)
    if where == "ray":
        if partition or account or setup or submit:
            raise UserError("--partition, --account, --setup and --submit are Slurm options.", fix="Remove them.")
        raise typer.Exit(run_on_ray(loaded.recipe, overrides or [], runs_dir, nodes, cpus, address))
    cluster = slurm.Cluster(nodes, gpus_per_node, cpus, partition, account, time, setup=setup or ())
    command = [str(find_recipe(recipe).absolute()), *(overrides or [])]
    folder = slurm.write_jobs(loaded.recipe, loaded.plan(runs_dir), command, runs_dir.absolute(), cluster)
    if not submit:
        typer.echo(f"The job scripts are in {folder}.  Next: bash {folder / 'submit.sh'}")
        return
    for line in slurm.submit(folder):
        typer.echo(line)
    typer.echo(f"Logs: {folder}.  Run the same command again to submit what is missing.")


@app.command()
def show(
    target: Annotated[
        str,
        typer.Argument(
            help="A folder, RECIPE or RECIPE/STEP (latest run), RECIPE/RUN or RECIPE/RUN/STEP.",
            autocompletion=runs_and_steps,
        ),
    ],
    rows: Annotated[int, typer.Option(help="Rows to show.", min=1)] = 5,
    start: Annotated[int, typer.Option(help="First row to show.", min=0)] = 0,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Browse a run, or the prompts, responses, scores, pairs, model or results of one of its steps."""
    from w2s_align.terminal.show import show_target

    show_target(target, runs_dir, start, rows)


@app.command()
def steps(
    kind: Annotated[str | None, typer.Argument(help="Show the options of this kind.", autocompletion=kinds)] = None,
    every: Annotated[bool, typer.Option("--all", help="Show every option with its whole help.")] = False,
) -> None:
    """List the step kinds with what each reads and writes, or the options of one kind."""
    from w2s_align.terminal.catalogue import kind_options, kinds_table
    from w2s_align.terminal.progress import print_rich

    print_rich(kinds_table() if kind is None else kind_options(kind, every=every))


@app.command()
def recipes() -> None:
    """List the shipped recipes."""
    from w2s_align.terminal.catalogue import recipes_table
    from w2s_align.terminal.progress import print_rich

    print_rich(recipes_table())


@app.command()
def new(
    name: Annotated[str, typer.Argument(help="Name of your recipe, written to NAME.yaml.")],
    source: Annotated[str, typer.Option("--from", help="The recipe to start from.")] = "quickstart",
) -> None:
    """Start your own recipe from a shipped one."""
    from w2s_align.terminal.catalogue import copy_recipe

    path = copy_recipe(name, source)
    typer.echo(f"Wrote {path}. Edit it, then: w2s plan {path}")


@app.command()
def schema() -> None:
    """Print the JSON schema of recipes, for editor completion."""
    import json

    from w2s_align.terminal.catalogue import recipe_schema

    typer.echo(json.dumps(recipe_schema(), indent=1))


@app.command()
def report(
    target: Annotated[
        str,
        typer.Argument(
            help="The folder of a run, RECIPE/RUN, or RECIPE for its latest run with a report.",
            autocompletion=runs_and_steps,
        ),
    ],
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Print the verdict of a run, its table of arms, and the path of its page."""
    from w2s_align.terminal.show import show_report

    show_report(target, runs_dir)


@app.command()
def compare(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN RUN...",
            help="Recipe names, <recipe>/<run id>, or folders of runs.",
            autocompletion=runs_and_steps,
        ),
    ],
    step: Annotated[str | None, typer.Option(help="Name of the evaluation, if a recipe has several.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder of the page. Default: <runs-dir>/compare/<runs>.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print only JSON.")] = False,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Compare runs: which options differ, and how the results differ, with paired tests."""
    from w2s_align.terminal.show import show_comparison

    show_comparison(runs, runs_dir, step, out, as_json)


@app.command()
def sweep(
    recipe: RecipeArgument,
    values: Annotated[
        list[str] | None,
        typer.Argument(metavar="[STEP.FIELD=A,B,C]...", help="Options to sweep; single values are set everywhere."),
    ] = None,
    paired: Annotated[
        bool, typer.Option("--paired", help="Zip the value lists instead of taking their product.")
    ] = False,
    file: Annotated[
        Path | None, typer.Option(help="YAML list of points, - {dpo.beta: 5, ...}, or budgets of labels.")
    ] = None,
    listed: Annotated[bool, typer.Option("--list", help="List the points and what they cost; run nothing.")] = False,
    data_dir: DataDir = None,
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
) -> None:
    """Run a recipe once per combination of values, sharing artifacts; then show a table, a plot and the best."""
    from w2s_align.recipe.sweep import sweep_points
    from w2s_align.terminal.catalogue import find_recipe
    from w2s_align.terminal.show import list_points, show_sweep
    from w2s_align.terminal.sweep import load_sweep

    points, overrides = sweep_points(values or [], file, paired=paired)
    loaded = load_sweep(find_recipe(recipe), points, overrides)
    if listed:
        list_points(loaded)
    else:
        show_sweep(loaded, runs_dir)


@app.command()
def doctor(
    runs_dir: RunsDir = DEFAULT_RUNS_DIR,
    verify: Annotated[
        str | None,
        typer.Option(metavar="RUN", help="Compare the files of this run with their digests instead."),
    ] = None,
) -> None:
    """Check this machine: packages, GPUs, memory, disk and hub access, and how to fix what is wrong."""
    from w2s_align.terminal.doctor import examine, findings_table
    from w2s_align.terminal.progress import print_rich

    if verify is not None:
        _verify(verify, runs_dir)
        return
    findings = examine(runs_dir)
    print_rich(findings_table(findings))
    if any(finding.level == "problem" for finding in findings):
        raise typer.Exit(1)


def _verify(target: str, runs_dir: Path) -> None:
    from w2s_align.runs.find import find_target
    from w2s_align.runs.verify import verify
    from w2s_align.terminal.doctor import findings_table, verified_finding
    from w2s_align.terminal.progress import print_rich

    verified = list(verify(find_target(target, runs_dir)))
    print_rich(findings_table([verified_finding(item) for item in verified if not item.problems]))
    problems = [problem for item in verified for problem in item.problems]
    if problems:
        raise UserError.all(problems)


def _fraction(text: str) -> tuple[int, int]:
    number, slash, count = text.partition("/")
    if not (slash and number.isdecimal() and count.isdecimal()):
        raise UserError(f"--shard {text} is not a shard.", fix="Write its number and how many there are, e.g. 2/4.")
    return int(number), int(count)


def _load(recipe: str, overrides: list[str] | None) -> LoadedRecipe:
    from w2s_align.runs.loaded import load_recipe
    from w2s_align.terminal.catalogue import find_recipe

    return load_recipe(find_recipe(recipe), overrides or [])


def main() -> None:
    """Entry point of the `w2s` command."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # schedulers and containers stop a run as Ctrl-C does
    code: object = STOPPED
    try:
        code = app(standalone_mode=False)  # typer.Exit comes back as its code, and so does a Ctrl-C
    except UserError as error:
        from w2s_align.terminal.errors import show_error

        show_error(error)
        sys.exit(2)
    except (typer.Abort, KeyboardInterrupt):
        pass
    except Exception as error:
        _show_usage_error(error)
    if code == STOPPED:
        typer.echo("Stopped. Run the same command again to resume.", err=True)
    sys.exit(code if isinstance(code, int) else 0)


def _show_usage_error(error: Exception) -> None:
    """Show a wrong command line as click does; of anything else, which is a bug, one line and where its log is."""
    show = getattr(error, "show", None)
    if show is None:
        from w2s_align.terminal.errors import show_bug

        show_bug(error)
        sys.exit(1)
    show()
    sys.exit(getattr(error, "exit_code", 2))


if __name__ == "__main__":
    main()
