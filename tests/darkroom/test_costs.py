"""Every statement of the SQLite adapters is answered by an index, so that its cost does not grow.

Counting (`_DEPTH`) reads index entries only, but reads them all.
"""

import sqlite3
from datetime import timedelta
from pathlib import Path
from types import ModuleType

import pytest

from darkroom.errors import StoreUnavailable
from darkroom.jobstores import sqlite as jobs
from darkroom.jobstores.base import JobFilter
from darkroom.queues import sqlite as queues
from darkroom.sqlite import Database
from tests.samples import NOW, make_generation, make_job

STATEMENTS = [
    pytest.param(module, name, id=f"{module.__name__.split('.')[1]}{name.lower()}")
    for module in (queues, jobs)
    for name, text in vars(module).items()
    if name.isupper()
    and name != "SCHEMA"
    and isinstance(text, str)
    and " " in text
    and "VALUES" not in text  # a plain insert reads nothing
]


@pytest.mark.parametrize(("module", "name"), STATEMENTS)
def test_no_statement_reads_a_whole_table_or_sorts(module: ModuleType, name: str) -> None:
    connection = sqlite3.connect(":memory:")
    connection.executescript(module.SCHEMA)
    statement = getattr(module, name)
    values = (0,) * statement.count("?") or Anything()
    plan = [row[3] for row in connection.execute(f"EXPLAIN QUERY PLAN {statement}", values)]
    assert plan, "a statement that reads has a plan"
    for step in plan:
        assert not step.startswith("SCAN") or "CONSTANT ROW" in step, step
        assert "TEMP B-TREE" not in step, step


class Anything(dict[str, int]):
    """A value for every named parameter."""

    def __missing__(self, name: str) -> int:
        return 0


def test_the_statements_were_found() -> None:
    assert len(STATEMENTS) > 8


async def test_a_page_reads_a_bounded_number_of_records(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "MAX_SCANNED", 10)
    store = jobs.SqliteJobStore(Database(tmp_path / "jobs.db", jobs.SCHEMA, StoreUnavailable))
    wanted = []
    for index in range(95):
        rare = index % 30 == 0
        job = make_job(
            created_at=NOW + timedelta(seconds=index),
            generation=make_generation(model="rare" if rare else "demo"),
        )
        await store.create(job)
        wanted += [job.id] * rare
    found, pages, cursor = [], 0, None
    while pages == 0 or cursor is not None:
        page = await store.list("acme", JobFilter(model="rare"), limit=3, cursor=cursor)
        found += [job.id for job in page.jobs]
        pages, cursor = pages + 1, page.next_cursor
    assert found == sorted(wanted, reverse=True)
    assert pages == 10, "95 records, 10 a page, some pages empty"
    await store.close()
