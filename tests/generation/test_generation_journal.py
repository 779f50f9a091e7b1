"""The journal keeps what was finished, whatever happens to the process or the disk."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from w2s_align.errors import UserError
from w2s_align.generation import journal as journal_module
from w2s_align.generation.journal import Journal, write_parquet
from w2s_align.generation.stats import Stats

JOB = {"seed": 0}
SCHEMA = pa.schema([("row", pa.int64()), ("text", pa.string())])


def open_journal(folder: Path, job: dict[str, object] = JOB, rows: int = 4) -> Journal:
    return Journal(folder / "journal.jsonl", job, rows)


def test_rows_come_back_in_order(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append([(3, {"text": "d"}), (0, {"text": "a\u2028ä\n"})])
    journal.append([(1, {"text": None})])
    journal.close()
    journal = open_journal(tmp_path)
    assert (journal.done, [journal.has(row) for row in range(4)]) == (3, [True, True, False, True])
    expected = [{"row": 0, "text": "a\u2028ä\n"}, {"row": 1, "text": None}, {"row": 3, "text": "d"}]
    assert list(journal.entries()) == expected
    journal.append([(2, {"text": "c"})])
    assert [row["text"] for row in journal.entries()] == ["a\u2028ä\n", None, "c", "d"]


def test_a_failed_answer_is_tried_again_and_counts_until_then(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    journal.append([(0, {"text": "a", "error": None}), (1, {"text": None, "error": "time-out"})])
    journal.append([(2, {"text": None, "error": "HTTP 500"})])
    journal.close()
    journal = open_journal(tmp_path)
    assert (journal.done, journal.failed) == (1, 2)
    assert [journal.has(row) for row in range(4)] == [True, False, False, False]
    journal.append([(2, {"text": "c", "error": None})])
    journal.append([(1, {"text": None, "error": "HTTP 503"})])
    assert (journal.done, journal.failed) == (2, 1)
    assert [(row["row"], row["error"]) for row in journal.entries()] == [(0, None), (1, "HTTP 503"), (2, None)]


@pytest.mark.parametrize("kept", [1, 10, 24, 30])
def test_a_torn_last_line_is_made_again(tmp_path: Path, kept: int) -> None:
    journal = open_journal(tmp_path)
    journal.append([(0, {"text": "first"}), (1, {"text": "second"})])
    journal.close()
    path = tmp_path / "journal.jsonl"
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:-1]) + lines[-1][:kept])
    journal = open_journal(tmp_path)
    whole = kept >= len(lines[-1]) - 1  # only the end of line is missing
    assert journal.done == 1 + whole
    journal.append([(1, {"text": "again"}), (2, {"text": "third"})] if not whole else [(2, {"text": "third"})])
    journal.close()
    journal = open_journal(tmp_path)
    assert [row["text"] for row in journal.entries()] == ["first", "second" if whole else "again", "third"]


def test_a_torn_first_line_is_written_again(tmp_path: Path) -> None:
    (tmp_path / "journal.jsonl").write_text('{"job":{"se')
    journal = open_journal(tmp_path)
    journal.append([(0, {"text": "a"})])
    journal.close()
    assert open_journal(tmp_path).done == 1


def test_the_journal_of_another_job_is_refused(tmp_path: Path) -> None:
    open_journal(tmp_path).close()
    with pytest.raises(UserError, match="seed: 0 there, 1 now"):
        open_journal(tmp_path, {"seed": 1})


def test_one_process_at_a_time(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    with pytest.raises(UserError, match="Another process is generating"):
        open_journal(tmp_path)
    journal.close()
    open_journal(tmp_path)


def test_a_full_disk_is_a_users_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = open_journal(tmp_path)
    journal.append([(0, {"text": "a"})])
    with Path("/dev/full").open("wb", buffering=0) as full:  # every write to it says that the disk is full
        monkeypatch.setattr(journal, "_file", full)
        with pytest.raises(UserError, match=r"full.*kept.*run the same command again"):
            journal.append([(1, {"text": "b"})])
    monkeypatch.undo()
    journal.close()
    assert open_journal(tmp_path).done == 1


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "out").write_text("")
    with pytest.raises(UserError, match=r"cannot be written.*Not a directory"):
        open_journal(tmp_path / "out" / "deeper")


def test_stats_survive_a_restart(tmp_path: Path) -> None:
    journal = open_journal(tmp_path)
    stats = Stats(journal)
    stats.note_prompt("dropped", "p1", 99)
    stats.note_prompt("dropped", "p1", 99)
    stats.note("engine", version="1")
    stats.note("clock", seconds=3.5)
    journal.close()
    journal = open_journal(tmp_path)
    stats = Stats(journal)
    assert (stats.prompts("dropped"), stats.count("cut"), stats.is_dropped("p1")) == (["p1"], 0, True)
    assert (stats.last("engine"), stats.last("clock")) == ({"version": "1"}, {"seconds": 3.5})
    assert stats.last("tea") == {}


def test_parquet_is_written_in_several_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(journal_module, "ROWS_PER_FILE", 4)
    monkeypatch.setattr(journal_module, "ROWS_PER_BATCH", 2)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "old.parquet").write_text("from an attempt that was killed")
    paths = write_parquet(iter([{"row": i, "text": str(i)} for i in range(7)]), SCHEMA, tmp_path / "data")
    assert [path.name for path in paths] == ["responses-00000.parquet", "responses-00001.parquet"]
    assert [pq.read_table(path)["row"].to_pylist() for path in paths] == [[0, 1, 2, 3], [4, 5, 6]]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == [path.name for path in paths]
