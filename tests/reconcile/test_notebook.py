"""What a run has read, in a file: kept page by page, and read again whatever happened."""

from __future__ import annotations

import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from api.providers.telling import Unread
from scrip.reconcile.notebook import Heading, Notebook, NotebookError, Read

NOW = datetime(2026, 11, 28, tzinfo=UTC)
HEADING = Heading(provider="stripe", tenant="acme", since=NOW, began_at=NOW)
FIRST = Read(kind="invoices", next="in_1", objects=100, unread=(Unread("in_9", "x must be y"),))
LAST = Read(kind="invoices", objects=3)


def opened(path: Path, *, restart: bool = False) -> Notebook:
    later = Heading(provider="stripe", tenant="acme", since=NOW, began_at=datetime.now(UTC))
    return Notebook(path, later, restart=restart)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "run.jsonl"
    with Notebook(path, HEADING, restart=False) as notebook:
        assert not notebook.goes_on
        assert notebook.next("invoices") is None
        notebook.add(FIRST)
    return path


def test_a_run_goes_on_after_its_last_page(path: Path) -> None:
    with opened(path) as notebook:
        assert notebook.heading == HEADING
        assert notebook.pages == [FIRST]
        assert notebook.next("invoices") == "in_1"
        assert not notebook.done("invoices")
        notebook.add(LAST)
        assert notebook.done("invoices")
        assert not notebook.done("refunds")
    with opened(path) as notebook:
        assert notebook.pages == [FIRST, LAST]
        notebook.remove()
    assert not path.exists()


def test_wherever_the_last_line_is_cut_off_what_is_before_it_stays(path: Path) -> None:
    whole = path.read_bytes()
    end = whole.index(b"\n") + 1
    for cut in range(len(whole)):
        path.write_bytes(whole[:cut])
        with opened(path) as notebook:
            assert notebook.pages == []
            notebook.add(LAST)
        with opened(path) as notebook:
            assert notebook.pages == [LAST]
            assert (notebook.heading == HEADING) == (cut >= end)


def test_a_new_run_begins_at_the_beginning(path: Path) -> None:
    with opened(path, restart=True) as notebook:
        assert notebook.pages == []
    with opened(path) as notebook:
        assert notebook.pages == []


def test_nobody_else_can_read_it(path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_two_runs_do_not_share_one(path: Path) -> None:
    with opened(path), pytest.raises(NotebookError, match="another run"):
        opened(path)


def test_any_other_file_is_left_as_it_is(path: Path) -> None:
    path.write_text("my letters\n")
    with pytest.raises(NotebookError, match="choose another"):
        opened(path)
    assert path.read_text() == "my letters\n"
