"""Pushing to a hub on 127.0.0.1, with the real client: private by default, resumable, and clear when it is refused."""

import os
import subprocess
import sys

import pyarrow.parquet as pq
import pytest
from fake_hub import FakeHub

from w2s_align.errors import UserError
from w2s_align.hub import check_push
from w2s_align.interchange import export_pairs
from w2s_align.pairing import model_order

SECRET = "hf_secretsecretsecret"
PUSH = """
import sys
from pathlib import Path
from w2s_align.errors import UserError
from w2s_align.hub import push_folder
try:
    files = ["data/*.parquet", "README.md"]
    print(push_folder(Path(sys.argv[1]), sys.argv[2], "dataset", private=sys.argv[3] == "private", files=files))
except UserError as error:
    sys.exit("refused: " + str(error))
"""


@pytest.fixture
def hub():
    with FakeHub(SECRET) as opened:
        yield opened


@pytest.fixture
def folder(make, tmp_path):
    weak, weaker = make.responses([("a", "w", 0, "yes")]), make.responses([("a", "v", 0, "no")])
    pairs = model_order(weak, weaker, make.prompts("a"))
    export_pairs(pairs.table, tmp_path / "data-set")
    (tmp_path / "data-set" / "log.txt").write_text("not for the hub")
    return tmp_path / "data-set"


def push(hub, folder, name="me/pairs", visibility="private", token=SECRET):
    # the client reads its environment once, at import: every push has a process of its own
    environment = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": token, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-c", PUSH, str(folder), name, visibility]
    hub.requests.clear()
    return subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)


def test_a_push_is_private_sends_the_data_and_again_nothing(hub, folder, tmp_path):
    done = push(hub, folder)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{hub.endpoint}/datasets/me/pairs/commit/")
    repository = hub.repositories["me/pairs"]
    assert repository["private"] is True
    assert sorted(repository["files"]) == ["README.md", "data/train-00000-of-00001.parquet"]
    assert repository["files"]["README.md"] == (folder / "README.md").read_bytes()
    (tmp_path / "back.parquet").write_bytes(repository["files"]["data/train-00000-of-00001.parquet"])
    assert pq.read_table(tmp_path / "back.parquet").num_rows == 1
    again = push(hub, folder)
    assert again.returncode == 0 and len(repository["commits"]) == 2
    assert [request for request in hub.requests if request.startswith("PUT")] == []


def test_a_push_that_was_cut_off_resumes_and_old_files_go_away(hub, folder):
    hub.fail_uploads = 100
    assert push(hub, folder).returncode
    assert hub.repositories["me/pairs"]["files"] == {}
    hub.fail_uploads = 0
    hub.repositories["me/pairs"]["files"]["data/train-00000-of-00009.parquet"] = b"old"
    assert push(hub, folder).returncode == 0
    assert sorted(hub.repositories["me/pairs"]["files"]) == ["README.md", "data/train-00000-of-00001.parquet"]


def test_refusals_are_sentences_and_never_show_the_token(hub, folder):
    wrong = push(hub, folder, token="hf_wrongwrongwrong")
    assert wrong.stderr.splitlines()[-1].startswith("refused: The hub refuses the push to me/pairs: ")
    assert "(401)" in wrong.stderr and "the token may write to me" in wrong.stderr
    assert "hf_wrong" not in wrong.stderr + wrong.stdout
    assert push(hub, folder, visibility="public").returncode == 0
    public = push(hub, folder)
    assert "me/pairs exists and is public" in public.stderr
    hub.endpoint = "http://127.0.0.1:9"
    away = push(hub, folder)
    assert "refused: The hub could not be reached to push to me/pairs" in away.stderr


def test_what_cannot_be_pushed_is_refused_before_anything_runs(monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    with pytest.raises(UserError, match="HF_TOKEN is not set"):
        check_push("me/pairs")
    with pytest.raises(UserError, match="not the name of a repository"):
        check_push("pairs")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        check_push("me/pairs")
