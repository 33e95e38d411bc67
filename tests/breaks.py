"""The breaks of `tests/mutants.py`: each a mistake somebody could make, and the tests that must turn red for it."""

from __future__ import annotations

from typing import Final, NamedTuple

__all__ = ["BREAKS", "Break"]


class Break(NamedTuple):
    """One mistake: in a file, the right text by a wrong one."""

    name: str
    file: str
    right: str
    wrong: str
    tests: tuple[str, ...]


SQL: Final = "dbjobq/storage/sql/"
RUNTIME: Final = "dbjobq/runtime/"

_LIVES: Final = ("tests/storage/test_life_cycle.py",)
_FENCING: Final = ("tests/storage/test_fencing.py",)
_WAKING: Final = ("tests/storage/test_wake_up.py",)
_UNIQUE: Final = ("tests/queue/test_unique.py",)
_CRASH: Final = ("tests/storage/test_server_crash.py",)
_DURABLE: Final = ("tests/storage/test_durable.py",)
_LIFE: Final = ("tests/worker/test_life.py",)
_STAND_IN: Final = ("tests/storage/test_stand_in.py",)
_POLLING: Final = ("tests/worker/test_polling.py",)

BREAKS: Final = (
    # Fences.
    Break("a result of another claim", SQL + "work/finish.sql", " and lease.claim = sent.claim", "", _FENCING),
    Break(
        "a completion of another claim",
        SQL + "work/finish_completed.sql",
        " and lease.claim = sent.claim",
        "",
        _FENCING,
    ),
    Break("progress of another claim", SQL + "work/progress.sql", " and lease.claim = sent.claim", "", _FENCING),
    Break("claims that wait for each other", SQL + "work/claim.sql", "for update skip locked", "for update", _LIVES),
    Break(
        "a heartbeat that revives", SQL + "worker/heartbeat.sql", " and expires_at > clock_timestamp()", "", _FENCING
    ),
    Break("accepted ignores the status", SQL + "work/accepted.sql", " and done.status = event", "", _FENCING),
    Break("accepted ignores the claim", SQL + "work/accepted.sql", " and done.claim = sent.claim", "", _FENCING),
    Break(
        "rescue marks no suspect",
        SQL + "worker/rescue.sql",
        "job_id, true from bodies",
        "job_id, false from bodies",
        _FENCING,
    ),
    Break(
        "rescue is free of charge",
        SQL + "worker/rescue.sql",
        "attempts + 1, job_id, true",
        "attempts, job_id, true",
        _FENCING,
    ),
    Break(
        "rescue keeps the claim's number",
        SQL + "worker/rescue.sql",
        "insert into {schema}.failure (attempts,",
        "insert into {schema}.failure (claim, attempts,",
        _FENCING,
    ),
    # Durability.
    Break(
        "results are not durable",
        "dbjobq/storage/postgres/worker/link.py",
        "self.commit.durably if durable else self.commit.asynchronously",
        "self.commit.asynchronously",
        _DURABLE,
    ),
    Break(
        "a last start is not flushed",
        SQL + "work/claim.sql",
        "case when max_retries <= attempts then",
        "case when false then",
        _CRASH,
    ),
    Break(
        "a heartbeat waits for the standby",
        SQL + "worker/heartbeat.sql",
        "set_config('synchronous_commit', 'off', true)",
        "id",
        _CRASH,
    ),
    # Lives.
    Break("a life of one and a half leases", RUNTIME + "trust.py", "TTL: Final = 0.66", "TTL: Final = 1.5", _LIFE),
    Break(
        "a lease counted from the answer",
        RUNTIME + "liveness/heartbeat.py",
        "self._lease.renewed(sent_at, life)",
        "self._lease.renewed(now(), life)",
        _LIFE,
    ),
    Break(
        "a dead worker is seldom looked for",
        "dbjobq/maintenance/rescue.py",
        "PROBE: Final = 0.25",
        "PROBE: Final = 2.5",
        _LIFE,
    ),
    # A blocked loop.
    Break(
        "what is written for a blocked loop waits for a lock",
        SQL + "worker/unlocked.sql",
        "for update of lease skip locked",
        "for update of lease",
        _STAND_IN,
    ),
    Break(
        "what is written for a blocked loop ignores a lock",
        SQL + "worker/unlocked.sql",
        "for update of lease skip locked",
        "",
        _STAND_IN,
    ),
    # Keys.
    Break(
        "a key stays behind when its id is taken",
        SQL + "enqueue/enqueue_checked.sql",
        "%(unique_key)s::text is not null and not exists (select from known)",
        "%(unique_key)s::text is not null",
        _UNIQUE,
    ),
    Break("a tie outlives its job", SQL + "parts/untied.sql", "unique_key.job_id = ending.id", "false", _UNIQUE),
    Break(
        "finish frees no key",
        SQL + "work/finish.sql",
        "event in ({complete}, {fail})\n), {untied}",
        "false\n), {untied}",
        _UNIQUE,
    ),
    Break(
        "cancel frees no key",
        SQL + "by_hand/cancel.sql",
        "where (select true from gone where",
        "where (select false from gone where",
        _UNIQUE,
    ),
    Break(
        "rescue frees no key",
        SQL + "worker/rescue.sql",
        "select job_id as id, unique_key from bodies where attempts >= max_retries",
        "select job_id as id, unique_key from bodies where false",
        _UNIQUE,
    ),
    # Waking.
    Break(
        "a notification that comes during a claim is forgotten",
        RUNTIME + "poller.py",
        "        answer = await self._session.step(exchange)\n",
        "        answer = await self._session.step(exchange)\n        self._rest.looks()\n",
        _POLLING,
    ),
    Break(
        "what was told is never forgotten",
        RUNTIME + "poller.py",
        "            self._rest.looks()\n",
        "            pass\n",
        _POLLING,
    ),
    Break(
        "a hand-back wakes nobody",
        SQL + "work/finish.sql",
        "event in ({retry}, {release}, ",
        "event in ({retry}, ",
        _WAKING,
    ),
    Break(
        "a retry wakes nobody",
        SQL + "work/finish.sql",
        "event in ({retry}, {release}, ",
        "event in ({release}, ",
        _WAKING,
    ),
    Break(
        "a hand-back of all wakes nobody",
        SQL + "worker/release_worker.sql",
        "where wanted and id in",
        "where false and id in",
        _WAKING,
    ),
    Break("rescue wakes nobody", SQL + "worker/rescue.sql", "where wanted and id in", "where false and id in", _WAKING),
    Break(
        "promotion wakes nobody", SQL + "work/promote.sql", "where wanted and id in", "where false and id in", _WAKING
    ),
    Break("open writers are not looked for", SQL + "worker/writers.sql", "mode = 'RowExclusiveLock'", "false", _WAKING),
    Break(
        "a snapshot of before the sleep notifies nobody",
        SQL + "enqueue/notify.sql",
        " or current_setting('transaction_isolation') <> 'read committed'",
        "",
        _WAKING,
    ),
)
