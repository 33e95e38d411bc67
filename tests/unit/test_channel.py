"""What a worker and the process of a job say to each other, and how such a process reaches the same jobs."""

from __future__ import annotations

import marshal
from pathlib import Path
from typing import Any

import pytest
from psycopg_pool import ConnectionPool
from sqlalchemy import create_engine

from dbjobq import BaseStorage, PostgresStorage
from dbjobq.runtime.processes.channel import Frames, frame
from dbjobq.storage.base import Recipe
from dbjobq.storage.sqlalchemy_storage import SQLAlchemyStorage

MESSAGES: list[tuple[Any, ...]] = [("a",), (), ("b", 1.5, None, {"c": [2**70, "\ud800"]}), ("d", "x" * 1000)]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000, 1_000_000])
def test_messages_arrive_whole_and_in_order_however_their_bytes_do(size: int) -> None:
    data, frames = b"".join(frame(*message) for message in MESSAGES), Frames()
    parts = [data[start : start + size] for start in range(0, len(data), size)]
    assert [message for part in parts for message in frames.add(part)] == MESSAGES


@pytest.mark.parametrize("value", [object(), Path(), ValueError(), len])
def test_what_is_no_plain_value_is_refused_by_the_sender(value: object) -> None:
    with pytest.raises(ValueError, match="unmarshallable"):
        frame("done", value)


def again(storage: BaseStorage) -> BaseStorage:
    """The storage as another process makes it."""
    recipe = storage.recipe()
    assert recipe is not None
    return Recipe(*marshal.loads(marshal.dumps(tuple(recipe)))).make()


def test_a_storage_on_postgresql_can_be_made_again_with_all_its_settings() -> None:
    storage = PostgresStorage(
        "host=/nowhere password=secret", schema="mine", listen_conninfo="host=/direct", timeout=3.0, max_size=2
    )
    other = again(storage)
    assert isinstance(other, PostgresStorage)
    assert other.recipe() == storage.recipe()
    assert (other.schema, other.connections.pooled) == ("mine", True)
    assert "password=secret" in other.connections.way.conninfo
    assert "host=/direct" in other.connections.direct.conninfo


def test_one_that_shares_a_pool_is_made_again_with_its_own() -> None:
    with ConnectionPool("host=/nowhere", kwargs={"dbname": "app"}, open=False) as pool:
        other = again(PostgresStorage(pool))
    assert isinstance(other, PostgresStorage)
    assert "dbname=app" in other.connections.way.conninfo


def test_one_in_a_file_can_be_made_again_and_one_in_memory_cannot(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/jobs.db"
    for given in (url, create_engine(url)):
        with SQLAlchemyStorage(given) as storage, again(storage) as other:
            assert repr(other) == repr(storage)
    with SQLAlchemyStorage("sqlite:///:memory:") as storage:
        assert storage.recipe() is None
