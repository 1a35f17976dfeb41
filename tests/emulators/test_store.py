import sqlite3
from pathlib import Path

import pytest

from emulators.service_bus.codec import Described, Symbol, ULong, encode
from emulators.service_bus.config import QueueSettings
from emulators.service_bus.message import MESSAGE_ANNOTATIONS, PROPERTIES, parse
from emulators.service_bus.queue import Queue
from emulators.service_bus.store import SqliteStore, StoreError

SETTINGS = QueueSettings(requires_duplicate_detection=True, max_delivery_count=2)


class Node:
    """A queue with its dead letters on a database, which can be opened again."""

    def __init__(self, path: Path) -> None:
        self.now_ms = 1_000_000
        self.path = path
        self.open()

    def open(self) -> None:
        self.store = SqliteStore(self.path)
        plain = QueueSettings()
        self.dead = Queue("q/$DeadLetterQueue", plain, lambda: self.now_ms, self.store)
        self.queue = Queue("q", SETTINGS, lambda: self.now_ms, self.store, dead_letter=self.dead)
        for queue in (self.queue, self.dead):
            queue.restore(*self.store.load(queue.name))

    def restart(self) -> None:
        self.store.close()
        self.open()

    def send(self, name: str, due_ms: int | None = None) -> int:
        annotations: dict[object, object] = {Symbol("x-opt-partition-key"): "p"}
        raw = encode(Described(ULong(MESSAGE_ANNOTATIONS), annotations))
        return self.queue.send(parse(raw + encode(Described(ULong(PROPERTIES), [name]))), due_ms)

    def lease(self) -> tuple[str, int]:
        entry = self.queue.lease()
        assert entry is not None
        return entry.message.message_id, entry.delivery_count


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path / "bus.db")


def test_messages_in_every_state_survive_a_restart(node: Node) -> None:
    for name in ("waiting", "failed", "deferred", "dead", "done"):
        node.send(name)
    node.send("later", node.now_ms + 1000)
    entries = {}
    for _ in range(5):
        entry = node.queue.lease()
        assert entry is not None
        entries[entry.message.message_id] = entry.lock_token
    node.queue.abandon(entries["failed"])
    node.queue.defer(entries["deferred"])
    node.queue.reject(entries["dead"], {"DeadLetterReason": "why"})
    node.queue.complete(entries["done"])
    before = [entry.encoded(peeked=True) for entry in node.queue.peek(0, 99)]
    buried = [entry.encoded(peeked=True) for entry in node.dead.peek(0, 99)]
    node.restart()
    assert [entry.encoded(peeked=True) for entry in node.queue.peek(0, 99)] == before
    assert [entry.encoded(peeked=True) for entry in node.dead.peek(0, 99)] == buried
    assert len(before) == 4
    assert [node.lease(), node.lease()] == [("waiting", 0), ("failed", 1)]
    assert node.queue.lease() is None
    assert len(node.queue.receive_deferred([3])) == 1
    node.now_ms += 1000
    assert node.lease()[0] == "later"


def test_sequence_numbers_are_not_used_again_after_a_restart_with_an_empty_queue(
    node: Node,
) -> None:
    for name in "abc":
        node.send(name)
        assert node.queue.lease(remove=True) is not None
    node.restart()
    assert node.send("d") == 4


def test_a_duplicate_is_known_after_a_restart(node: Node) -> None:
    node.send("same")
    assert node.queue.lease(remove=True) is not None
    node.restart()
    assert node.send("same") == 0
    node.now_ms += SETTINGS.duplicate_window_ms
    node.restart()
    assert node.send("same") == 2


def test_what_was_not_committed_is_not_there(node: Node) -> None:
    node.send("kept")
    node.store.commit()
    node.send("lost")
    assert node.store.dirty
    node.store._db.close()
    node.open()
    assert [entry.message.message_id for entry in node.queue.peek(0, 9)] == ["kept"]


def test_a_dropped_queue_leaves_nothing(node: Node) -> None:
    node.store.save_queue("q", SETTINGS)
    node.send("a")
    node.store.commit()
    assert node.store.queues() == {"q": SETTINGS}
    node.send("b")
    node.store.drop_queue("q", "q/$DeadLetterQueue")
    node.restart()
    assert node.store.queues() == {}
    assert node.send("a") == 1


def test_two_brokers_cannot_share_a_database(node: Node) -> None:
    with pytest.raises(StoreError, match="locked"):
        SqliteStore(node.path)


def test_a_file_of_another_kind_or_version_is_refused(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("no database " * 100)
    with pytest.raises(StoreError):
        SqliteStore(text)
    newer = tmp_path / "newer.db"
    db = sqlite3.connect(newer)
    db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(StoreError, match="99"):
        SqliteStore(newer)
