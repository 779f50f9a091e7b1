"""Several processes: the same losses as one, resume after a kill, errors that reach the user, refusals."""

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from safetensors.torch import load_file

from w2s_align.errors import UserError
from w2s_align.training import (
    LAUNCHES,
    DPOSettings,
    KTOSettings,
    Lora,
    RewardModelSettings,
    SFTSettings,
    SimPOSettings,
    TrainResources,
    train,
)
from w2s_align.training.launch import _command, _environment
from w2s_align.training.layout import LAUNCHERS, Layout, check_launch, find_layout
from w2s_align.training.preflight import check_rules

PLAIN = {"learning_rate": 1e-2, "batch_size": 8, "num_train_epochs": 2.5, "lr_scheduler_type": "linear"}
# One pass for the reference: under ZeRO-3 its engine, left on the model, then broke the training.
TWO = TrainResources(processes=2, micro_batch_size=2, precompute_ref_batch_size=8)
LORA = Lora(r=4, alpha=8)


def metrics(out):
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def numbers(out):
    return [value for row in metrics(out) for value in (row["loss"], row["grad_norm"], row["learning_rate"])]


def same_as_one_process(tiny, student, folder, launch, settings):
    """Train once in this process, once with a launch; 10 rows and batches of 8 leave the last batch incomplete."""
    rows = tiny.pairs(10)
    one = train(student, rows, folder / "one", settings, resources=TrainResources(micro_batch_size=2))
    two = train(student, rows, folder / "two", settings, resources=TWO, launch=launch)
    assert two.batch == {"batch_size": 8, "processes": 2, "micro_batch_size": 2, "accumulation": 2}
    assert one.steps == two.steps == len(metrics(folder / "two"))
    assert numbers(folder / "one") == pytest.approx(numbers(folder / "two"), rel=1e-4, abs=1e-6)
    weights = [load_file(Path(report.model_dir) / "model.safetensors") for report in (one, two)]
    for name, weight in weights[0].items():
        assert torch.allclose(weight, weights[1][name], atol=1e-4)
    assert two.alarms == one.alarms == []
    assert two.verified["logit_error"] < 1e-4 < two.verified["logit_change"]
    assert not (folder / "two" / "launch").exists()
    if settings.adapter:
        adapter = load_file(folder / "two" / "adapter" / "adapter_model.safetensors")
        assert len(adapter) == 28
        assert all(bool(value.any()) for value in adapter.values())
    return two


def test_zero2_trains_as_one_process_does(tiny, student, tmp_path):
    report = same_as_one_process(tiny, student, tmp_path, "zero2", DPOSettings(**PLAIN, beta=0.5))
    assert report.launch == "zero2"
    assert report.versions["deepspeed"]


def test_fsdp2_trains_as_one_process_does(tiny, student, tmp_path):
    same_as_one_process(tiny, student, tmp_path, "fsdp2", DPOSettings(**PLAIN, beta=0.5))


def test_zero3_trains_an_adapter_as_one_process_does(tiny, student, tmp_path):
    same_as_one_process(tiny, student, tmp_path, "zero3", DPOSettings(**PLAIN, adapter=LORA))


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["ddp", "zero1", "zero2", "zero3", "zero3_offload", "fsdp2"])
@pytest.mark.parametrize("adapter", [None, LORA])
def test_every_launch_trains_as_one_process_does(tiny, student, tmp_path, launch, adapter):
    same_as_one_process(tiny, student, tmp_path, launch, DPOSettings(**PLAIN, adapter=adapter, beta=0.5))


@pytest.mark.slow
@pytest.mark.parametrize("launch", ["zero2", "zero3", "fsdp2"])
@pytest.mark.parametrize(
    "settings",
    [
        SFTSettings(**PLAIN),
        KTOSettings(**PLAIN, kl_batch=4),
        SimPOSettings(**PLAIN),
        RewardModelSettings(**PLAIN, adapter=LORA),
    ],
)
def test_every_method_trains_as_one_process_does(tiny, student, tmp_path, launch, settings):
    rows = tiny.pairs(10)
    resources = TrainResources(micro_batch_size=None if isinstance(settings, KTOSettings) else 2)
    train(student, rows, tmp_path / "one", settings, resources=resources)
    train(
        student,
        rows,
        tmp_path / "two",
        settings,
        resources=resources.model_copy(update={"processes": 2}),
        launch=launch,
    )
    assert numbers(tmp_path / "one") == pytest.approx(numbers(tmp_path / "two"), rel=1e-4, abs=1e-6)


KILLED = """
import json, os, signal, sys
from w2s_align.training import DPOSettings, TrainResources, train
student, pairs, out, settings, kill_at, launch = json.loads(sys.argv[1])
def progress(done, total, note):
    if done >= kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
resources = TrainResources(save_every=2, processes=2, micro_batch_size=2)
train(student, pairs, out, DPOSettings(**settings), resources=resources, launch=launch, progress=progress)
"""


def alive(folder):
    """Processes whose command names this folder."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = entry.read_bytes()
        except OSError:
            continue
        if str(folder).encode() in command and b"w2s_align.training.ranks" in command:
            found.append(entry.parent.name)
    return found


@pytest.mark.slow
@pytest.mark.parametrize(("launch", "kind"), [("zero2", "deepspeed"), ("zero3", "deepspeed"), ("fsdp2", "fsdp")])
def test_a_killed_parent_ends_all_ranks_and_the_training_goes_on(tiny, student, tmp_path, launch, kind):
    settings = DPOSettings(**PLAIN | {"num_train_epochs": 60, "max_steps": 120})
    rows, out = tiny.pairs(10), tmp_path / "killed"
    arguments = json.dumps([str(student), rows, str(out), settings.model_dump(), 3, launch])
    done = subprocess.run([sys.executable, "-c", KILLED, arguments], capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    deadline = time.monotonic() + 20
    while alive(out) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert not alive(out)
    reached = len(metrics(out))
    assert 3 <= reached < 120
    with pytest.raises(UserError, match=rf"made by 2 processes \({kind}\); there are 1 \(single\) now"):
        train(student, rows, out, settings)
    resources = TWO.model_copy(update={"save_every": 2})
    resumed = train(student, rows, out, settings, resources=resources, launch=launch)
    assert 2 <= resumed.resumed_from <= reached
    one = train(student, rows, tmp_path / "one", settings, resources=TrainResources(micro_batch_size=2))
    assert one.steps == resumed.steps == 120
    assert numbers(out)[: 3 * reached] == pytest.approx(numbers(tmp_path / "one")[: 3 * reached], rel=1e-4, abs=1e-6)
    assert metrics(out)[-1]["loss"] == pytest.approx(metrics(tmp_path / "one")[-1]["loss"], rel=1e-2, abs=1e-4)


def test_a_rank_that_crashes_is_one_error_with_its_last_lines(tiny, student, tmp_path, monkeypatch):
    """A broken module on the path of the processes alone: the parent never imports it."""
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "sitecustomize.py").write_text(
        textwrap.dedent(
            """
            import os, sys
            if "w2s_align.training.ranks" in sys.orig_argv:
                import w2s_align.training.loop as loop
                really = loop.train_here
                def train_here(plan, progress):
                    if os.environ["RANK"] == "0":
                        return really(plan, progress)
                    print("the last words of rank 1", flush=True)
                    os.kill(os.getpid(), 9)
                loop.train_here = train_here
            """
        )
    )
    monkeypatch.setenv("PYTHONPATH", str(broken), prepend=os.pathsep)
    with pytest.raises(UserError, match="Process 1 of 2 failed: it ended with exit code -9") as caught:
        train(student, tiny.pairs(8), tmp_path / "out", DPOSettings(**PLAIN), resources=TWO, launch="ddp")
    problem = caught.value.problems[0]
    assert "the last words of rank 1" in problem.why
    assert "Lower micro_batch_size" in problem.fix
    assert str(tmp_path / "out" / "launch" / "rank-1.log") in problem.fix


@pytest.mark.slow
def test_a_refusal_in_the_ranks_reaches_the_user_as_it_is(tiny, student, tmp_path):
    settings = DPOSettings(**PLAIN | {"learning_rate": 1e18, "lr_scheduler_type": "constant"}, max_grad_norm=0)
    with pytest.raises(UserError, match="Lower learning_rate"):
        train(student, tiny.pairs(8), tmp_path, settings, resources=TWO, launch="zero2")


@pytest.mark.slow
def test_a_users_own_file_and_no_compiler(tiny, student, tmp_path, monkeypatch):
    config = yaml.safe_load((LAUNCHERS / "zero3_offload.yaml").read_text())
    own = tmp_path / "mine.yaml"
    own.write_text(yaml.safe_dump(config))
    (tmp_path / "zero3_offload.json").write_text((LAUNCHERS / "zero3_offload.json").read_text())
    empty = tmp_path / "bin"
    empty.mkdir()
    monkeypatch.setenv("PATH", str(empty))
    report = train(student, tiny.pairs(8), tmp_path / "out", DPOSettings(**PLAIN), resources=TWO, launch=str(own))
    assert report.batch["processes"] == 2


@pytest.mark.slow
def test_two_machines_under_slurm(tiny, student, tmp_path, monkeypatch):
    """srun as a script that runs its command once for each machine, both of which are this one."""
    (tmp_path / "bin").mkdir()
    srun = tmp_path / "bin" / "srun"
    srun.write_text(
        '#!/bin/bash\nwhile [[ "$1" == --* ]]; do shift; done\n'
        'SLURM_NODEID=1 "$@" & SLURM_NODEID=0 "$@"; code=$?; wait $! || exit $?; exit $code\n'
    )
    srun.chmod(0o755)
    monkeypatch.setenv("PATH", f"{srun.parent}:{os.environ['PATH']}")
    monkeypatch.setenv("SLURM_JOB_NUM_NODES", "2")
    monkeypatch.setenv("SLURM_JOB_ID", "4711")
    monkeypatch.setattr(socket, "gethostname", lambda: "127.0.0.1")
    rows, settings = tiny.pairs(10), DPOSettings(**PLAIN)
    report = train(
        student, rows, tmp_path / "two", settings, resources=TrainResources(micro_batch_size=2), launch="ddp"
    )
    assert report.batch["processes"] == 2
    monkeypatch.delenv("SLURM_JOB_NUM_NODES")
    train(student, rows, tmp_path / "one", settings, resources=TrainResources(micro_batch_size=2))
    assert numbers(tmp_path / "one") == pytest.approx(numbers(tmp_path / "two"), rel=1e-4, abs=1e-6)


@pytest.mark.slow
def test_a_script_under_torchrun_is_a_training_of_all_its_processes(tiny, student, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        "import json, sys\n"
        "from w2s_align.training import DPOSettings, TrainResources, train\n"
        "student, pairs, out, settings = json.loads(sys.argv[1])\n"
        "resources = TrainResources(device='cpu', micro_batch_size=2)\n"
        "report = train(student, pairs, out, DPOSettings(**settings), resources=resources)\n"
        "assert report.batch['processes'] == 2\n"
    )
    settings = DPOSettings(**PLAIN)
    arguments = json.dumps([str(student), tiny.pairs(10), str(tmp_path / "two"), settings.model_dump()])
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run([*command, str(script), arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    train(student, tiny.pairs(10), tmp_path / "one", settings, resources=TrainResources(micro_batch_size=2))
    assert numbers(tmp_path / "one") == pytest.approx(numbers(tmp_path / "two"), rel=1e-4, abs=1e-6)


def test_every_launch_is_a_file_that_accelerate_reads():
    from accelerate.commands.config.config_args import load_config_from_file

    assert {file.stem for file in LAUNCHERS.glob("*.yaml")} | {"single"} == set(LAUNCHES)
    for name in LAUNCHES[1:]:
        check_launch(name)
        assert load_config_from_file(str(LAUNCHERS / f"{name}.yaml")).num_machines == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "is not valid YAML"),
        ("a: 1", "has no distributed_type"),
        ("distributed_type: MULTI_CPU", "Use MULTI_GPU, DEEPSPEED or FSDP"),
        ("{distributed_type: DEEPSPEED, deepspeed_config: {gradient_clipping: 0.5}}", "sets gradient_clipping to 0.5"),
        ("distributed_type: FSDP", "does not set fsdp_cpu_ram_efficient_loading to false"),
    ],
)
def test_a_file_that_cannot_launch_is_refused(tmp_path, text, message):
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=message):
        check_launch(str(tmp_path / "mine.yaml"))


@pytest.mark.parametrize(
    ("launch", "resources", "message"),
    [
        ("zero4", {}, "Did you mean zero3"),
        ("single", {"processes": 2}, "Set launch: ddp"),
        ("ddp", {"processes": 3, "machines": 2}, "cannot be shared by 2 machines"),
    ],
)
def test_a_launch_that_cannot_be_is_refused(launch, resources, message):
    with pytest.raises(UserError, match=message):
        find_layout(launch, TrainResources(**resources))


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UserError, match="4 processes are asked for, and there are 2 GPUs"):
        find_layout("zero2", TrainResources(processes=4))
    assert find_layout("zero2", TrainResources()).processes == 2
    assert find_layout("fsdp2", TrainResources(machines=3)).processes == 6


@pytest.mark.parametrize(("gpus", "ends"), [(0, ["ranks.py"]), (2, ["-m", "w2s_align.training.ranks"])])
def test_on_a_gpu_no_rank_is_a_copy_of_the_launcher(tmp_path, monkeypatch, gpus, ends):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpus > 0)
    layout = Layout("ddp", str(LAUNCHERS / "ddp.yaml"), 2, 1, "ddp")
    plan = SimpleNamespace(layout=layout, dtype="bfloat16", resources=TrainResources())
    command = _command(plan, tmp_path)
    assert [Path(part).name for part in command[-1 - len(ends) :]] == [*ends, tmp_path.name]
    assert ("PET_RUN_PATH" in _environment(plan)) == (gpus == 0)


def test_a_batch_that_processes_cannot_share_is_refused_with_the_numbers_that_can(tiny, student, tmp_path):
    with pytest.raises(UserError, match="or 1, 2, 4 processes"):
        train(
            student,
            tiny.pairs(4),
            tmp_path,
            DPOSettings(**PLAIN),
            resources=TrainResources(processes=5),
            launch="ddp",
        )


@pytest.mark.parametrize(
    ("adapter", "dtypes", "message"),
    [
        (Lora(load_in_4bit=True), {}, "load_in_4bit cannot be combined with launch: zero3"),
        (Lora(use_dora=True), {}, "use_dora cannot be combined with launch: zero3"),
        (None, {"dtype": "bfloat16", "save_dtype": "float32"}, "under DeepSpeed"),
        (None, {"dtype": "bfloat16"}, "dtype bfloat16 cannot be combined with launch: zero3 on a CPU"),
    ],
)
def test_combinations_that_cannot_work_are_refused_in_words(adapter, dtypes, message):
    layout = Layout("zero3", "zero3.yaml", 2, 1, "deepspeed", 3)
    with pytest.raises(UserError, match=message):
        check_rules(DPOSettings(**PLAIN, adapter=adapter, **dtypes), TrainResources(), layout)
