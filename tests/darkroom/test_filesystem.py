"""The folder of pictures: no way out of it, nothing half there."""

import asyncio
from pathlib import Path

import pytest

from darkroom.errors import DarkroomError, ImageNotFound, InvalidInput, StoreUnavailable
from darkroom.imagestores import filesystem
from darkroom.imagestores.filesystem import FilesystemImageStore
from tests.samples import PNG

ESCAPES = [
    "..",
    ".",
    "",
    "../secret",
    "a/b",
    "/etc/passwd",
    ".locks",
    "a\x00b",
    "a\n",
    "ä",
    "a" * 300,
]


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_bytes(b"hush")
    return tmp_path / "images"


@pytest.mark.parametrize("word", ESCAPES)
async def test_no_job_id_or_name_leads_out_of_the_folder(root: Path, word: str) -> None:
    store = FilesystemImageStore(root)
    await store.put("job", "0.png", PNG)
    before = sorted(root.parent.rglob("*"))
    for job_id, name in ((word, "0.png"), ("job", word), (word, "secret"), (word, word)):
        with pytest.raises(ImageNotFound):
            await store.get(job_id, name)
        with pytest.raises(InvalidInput):
            await store.put(job_id, name, b"overwritten", attempt=9)
    with pytest.raises(InvalidInput):
        await store.delete(word)
    assert sorted(root.parent.rglob("*")) == before
    assert (root.parent / "secret").read_bytes() == b"hush"
    assert await store.get("job", "0.png") == PNG


async def test_nothing_but_pictures_can_be_read(root: Path) -> None:
    store = FilesystemImageStore(root)
    await store.put("job", "0.png", PNG, attempt=3)
    assert {path.name for path in (root / "job").iterdir()} == {"0.png", ".0.png.attempt"}
    with pytest.raises(ImageNotFound):
        await store.get("job", ".0.png.attempt")


async def test_dying_between_fence_and_picture_is_repaired_by_the_same_attempt(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = FilesystemImageStore(root)
    await store.put("job", "0.png", PNG + b"1", attempt=1)
    real = filesystem._replace

    def die_at_the_picture(path: Path, content: bytes) -> None:
        if path.suffix == ".png":
            raise OSError(28, "No space left on device")
        real(path, content)

    monkeypatch.setattr(filesystem, "_replace", die_at_the_picture)
    with pytest.raises(StoreUnavailable, match="No space left"):
        await store.put("job", "0.png", PNG + b"2", attempt=2)
    assert await store.get("job", "0.png") == PNG + b"1"
    monkeypatch.undo()
    with pytest.raises(DarkroomError):
        await store.put("job", "0.png", PNG + b"1", attempt=1)
    await store.put("job", "0.png", PNG + b"2", attempt=2)
    assert await store.get("job", "0.png") == PNG + b"2"


async def test_a_folder_that_cannot_be_written_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "images").write_text("in the way")
    with pytest.raises(StoreUnavailable):
        await FilesystemImageStore(tmp_path / "images").put("job", "0.png", PNG)


async def test_deleting_while_writing_leaves_all_or_nothing(root: Path) -> None:
    store = FilesystemImageStore(root)
    for _ in range(20):
        await asyncio.gather(
            store.put("job", "0.png", PNG), store.delete("job"), store.put("job", "1.png", PNG)
        )
    await store.put("job", "0.png", PNG)
    assert await store.get("job", "0.png") == PNG


async def test_many_jobs_need_few_lock_files(root: Path) -> None:
    store = FilesystemImageStore(root)
    await asyncio.gather(*(store.put(f"job-{index}", "0.png", PNG) for index in range(150)))
    assert len(list((root / ".locks").iterdir())) <= filesystem.LOCK_FILES
