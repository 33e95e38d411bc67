"""The plans of the hot statements on large tables: by index, without a sort, and no more pages than the rows need.

Each statement runs as it is sent: prepared; on a worker's connection with the settings that pin plans (`pinned`), and,
if it also runs on users' connections, without them (`default`). What it did is rolled back.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import psycopg
import pytest

from dbjobq import JobQueue, PostgresStorage
from dbjobq.storage.postgres.statements import LOOKING_UP, PINNED, Statements
from dbjobq.storage.values import Bounds

if TYPE_CHECKING:
    from tests.support.server import Databases

LARGE = {"job", "ready", "scheduled", "done", "failure", "unique_key"}

IDS = """
create function pg_temp.id(n int) returns uuid immutable language sql as
  $$ select ('01900000-0000-7000-8000-' || lpad(n::text, 12, '0'))::uuid $$;
"""
FILL = f"""{IDS}
insert into dbjobq.queue (name, wanted) select 'q' || n, false from generate_series(2, 10) as n;
insert into dbjobq.worker (name, expires_at)
select 'w' || n, now() + interval '1 h' * sign(n - 10) from generate_series(1, 20) as n;
create temp table numbers as select n, pg_temp.id(n) as id from generate_series(1, 602000) as n;
insert into dbjobq.job (position, queue, priority, max_retries, id, type, unique_key, data)
select n, case when n % 4 = 0 then 1 + n % 10 else 1 end, 3 + n % 3, 3, id, 'f',
       case when n % 10 = 0 then 'k' || n end, '{{}}'
  from numbers;
insert into dbjobq.ready (position, enqueued, queue, priority, job_id)
select n, case when n % 20 = 0 then n end, case when n % 4 = 0 then 1 + n % 10 else 1 end, 3 + n % 3, id
  from numbers where n <= 200000;
insert into dbjobq.scheduled (run_at, enqueued, queue, priority, job_id)
select now() + interval '1 s' * (n - 200500), n, 1, 9, id from numbers where n between 200001 and 400000;
insert into dbjobq.lease (claim, claimed_at, worker, attempts, job_id)
select n, now(), 11 + n % 10, 0, id from numbers where n between 400001 and 402000;
insert into dbjobq.done (started_at, finished_at, claim, worker, attempts, status, job_id)
select now(), to_timestamp(1700000000), n, 11, 0, 2 + (n < 406000)::int, id from numbers where n > 402000;
insert into dbjobq.failure (claim, attempts, job_id, error)
select n, 1, id, 'Error: x' from numbers where n > 402000;
insert into dbjobq.unique_key (key, job_id) select 'k' || n, id from numbers where n % 10 = 0 and n <= 402000;
select setval('dbjobq.claim', 1000000);
drop table numbers;
"""


def fill(connection: psycopg.Connection, statements: str) -> None:
    """Write jobs as producers do: a job and its place in one transaction."""
    with connection.transaction():
        for statement in statements.split(";\n"):
            connection.execute(statement.encode())


@pytest.fixture(scope="module")
def large(databases: Databases) -> Iterator[str]:
    """200,000 jobs ready in ten queues, 200,000 scheduled (500 of them due), 2,000 running, 200,000 done.

    Those that failed are the oldest.
    """
    with databases.fresh() as dsn:
        with psycopg.connect(dsn, autocommit=True) as connection:
            fill(connection, FILL)
            connection.execute("vacuum analyze")
        yield dsn


class Node(NamedTuple):
    """One node of a plan."""

    type: str
    table: str
    by: str
    """The index."""
    reads: str
    """The part of the statement (CTE) whose rows it reads."""
    rows: int
    """In all its loops."""
    shared: int
    """Pages looked at, by it and those below it."""


class Plan(NamedTuple):
    """What a statement did."""

    nodes: list[Node]
    shared: int

    def of(self, table: str) -> list[Node]:
        return [node for node in self.nodes if node.table == table]

    def indexes(self) -> set[str]:
        return {node.by for node in self.nodes if node.by}


def pages(plan: dict[str, Any]) -> int:
    return int(plan["Shared Hit Blocks"]) + int(plan["Shared Read Blocks"])


def nodes_of(plan: dict[str, Any]) -> Iterator[Node]:
    rows = round(plan["Actual Rows"] * plan["Actual Loops"])
    table, by, cte = (plan.get(name, "") for name in ("Relation Name", "Index Name", "CTE Name"))
    reads = cte if plan["Actual Loops"] else ""
    yield Node(plan["Node Type"], table, by, reads, rows, pages(plan))
    for below in plan.get("Plans", ()):
        yield from nodes_of(below)


def explain(dsn: str, name: str, params: dict[str, Any], *, pinned: bool, first: bytes = b"") -> Plan:
    """Execute a statement for real until its plan has settled, then three times more, and return the cheapest of these.

    A page of an index that happens to be full is split, and that is of the index, not of the plan: 8 pages and more.
    """
    text = Statements("dbjobq")[name].decode()
    order = list(dict.fromkeys(re.findall(r"%\((\w+)\)s", text)))
    for number, param in enumerate(order, 1):
        text = text.replace(f"%({param})s", f"${number}")
    text = text.replace("%%", "%")
    with psycopg.connect(dsn, prepare_threshold=None) as connection:
        for setting, value in PINNED.items() if pinned else ():
            connection.execute("select set_config(%s, %s, true)", (setting, value))
        if first:
            connection.execute(first)
        connection.execute(f"prepare hot as {text}".encode())
        cursor = psycopg.ClientCursor(connection)
        values = (
            cursor.mogrify(", ".join(["%s"] * len(order)).encode(), [params[param] for param in order]) if order else ""
        )
        call = f"explain (analyze, buffers, timing off, format json) execute hot{f'({values})' if values else ''}"
        plans: list[Plan] = []
        for _ in range(4 if pinned else 8):  # the first one reads the catalogue; after five the plan may be generic
            connection.execute("savepoint before")
            plans.append(plan_of(connection.execute(call.encode()).fetchone()))
            connection.execute("rollback to before")
        connection.rollback()
    return min(plans[-3:], key=lambda plan: plan.shared)


def plan_of(explained: Any) -> Plan:
    [[of_query]] = explained
    nodes = list(nodes_of(of_query["Plan"]))
    return Plan(nodes, nodes[0].shared + unread(of_query["Plan"], nodes))


def unread(plan: dict[str, Any], nodes: list[Node]) -> int:
    """Return the pages of what a statement does beside its answer: no node above has counted them."""
    read = {node.reads for node in nodes}
    parts = ((part["Subplan Name"], part) for part in plan.get("Plans", ()) if "Subplan Name" in part)
    return sum(pages(part) for name, part in parts if name.startswith("CTE ") and name[4:] not in read)


def job_id(number: int) -> str:
    return f"01900000-0000-7000-8000-{number:012}"


def array(numbers: list[int]) -> str:
    return "{" + ",".join(map(str, numbers)) + "}"


RUNNING = list(range(400_001, 400_101))
HELD = {"ids": "{" + ",".join(map(job_id, RUNNING)) + "}", "claims": array(RUNNING)}
ENDED = 1_700_000_000_000_000
"""Microseconds: when all that has ended did so."""
NEW = {
    "id": str(uuid.UUID(int=7)),
    "type": "f",
    "data": "{}",
    "queue": 1,
    "name": "default",
    "sure": False,
    "notify": True,
    "priority": 5,
    "max_retries": 3,
    "timeout": None,
    "execute_at": None,
    "delay": None,
    "unique_key": None,
}
CLAIM = {"queues": "{1}", "limit": 100, "lease": None, "worker": 11, "name": "w11", "beat": None}
FINISH = {
    **HELD,
    "events": [2, 3, 5, 6] * 25,
    "errors": [None, "e", "e", None] * 25,
    "results": ["1", None, None, None] * 25,
    "delays": [0.0, 0.0, 5.0, 0.0] * 25,
}

SEARCH = {"limit": 20, "queue": None, "type": None, "before": None, "scan": 10_000}
NEWEST = [job_id(number) for number in range(602_000, 601_980, -1)]

# name, parameters, rows it touches, pages allowed for each of them, pages allowed beside
HOT: dict[str, tuple[str, dict[str, Any], int, int, int]] = {
    "claim": ("claim", CLAIM, 100, 13, 30),
    "claim of one": ("claim", CLAIM | {"limit": 1, "lease": 300.0}, 1, 12, 30),
    "claim of many queues": ("claim", CLAIM | {"queues": array(list(range(1, 11)))}, 100, 13, 60),
    "claim of what the last queue has": ("claim", CLAIM | {"queues": "{99,98,3}", "limit": 50}, 50, 13, 30),
    "claim of nothing": ("claim", CLAIM | {"queues": "{99}"}, 0, 0, 10),
    "claim_after": (
        "claim_after",
        CLAIM | {"after": "{1}", "priorities": "{5}", "positions": "{150000}"},
        100,
        13,
        30,
    ),
    "clear": ("clear", {"queues": "{1}", **HELD}, 1000, 5, 30),
    "finish_completed": ("finish_completed", HELD, 100, 13, 30),
    "finish": ("finish", FINISH, 100, 19, 30),
    "enqueue": ("enqueue", NEW, 1, 0, 20),
    "enqueue_within": ("enqueue_within", NEW, 1, 0, 20),
    "enqueue_checked": ("enqueue_checked", NEW, 1, 0, 30),
    "enqueue_checked with a new key": ("enqueue_checked", NEW | {"unique_key": "new", "delay": 60.0}, 1, 0, 40),
    "enqueue_checked with a key that is held": ("enqueue_checked", NEW | {"unique_key": "k100"}, 1, 0, 30),
    "enqueue_checked with an id that is there": ("enqueue_checked", NEW | {"id": job_id(500_000)}, 1, 0, 35),
    "promote": ("promote", {"since": None}, 600, 20, 30),
    "heartbeat": ("heartbeat", {"worker": 15, "name": "w15", "ttl": 30.0}, 1, 0, 30),
    "held": ("held", HELD, 100, 6, 30),
    "progress": ("progress", HELD | {"progress": ["{}"] * 100}, 100, 13, 30),
    "claim_any": ("claim_any", CLAIM | {"turn": 7}, 100, 13, 40),
    "idle_of": ("idle_of", {"queues": "{1,3}", "few": 32, "since": None, "worker": 11, "name": "w11"}, 2, 6, 30),
    "idle": ("idle", {"queues": None, "few": 32, "since": None, "worker": 11, "name": "w11"}, 10, 6, 30),
    "next_due": ("next_due", {"since": None}, 1, 0, 20),
    "accepted": ("accepted", FINISH, 100, 9, 30),
    "unlocked": ("unlocked", HELD, 100, 6, 30),
    "cancel of a ready job": ("cancel", {"id": job_id(100_001), "mark": -1}, 1, 0, 45),
    "cancel of a job that came back": ("cancel", {"id": job_id(100_020), "mark": -1}, 1, 0, 45),
    "cancel of a scheduled job": ("cancel", {"id": job_id(300_000), "mark": -1}, 1, 0, 45),
    "cancel of a running job": ("cancel", {"id": job_id(401_000), "mark": -1}, 1, 0, 45),
    "cancel of a job that has ended": ("cancel", {"id": job_id(500_000), "mark": -1}, 1, 0, 45),
    "get_job that is ready": ("get_job", {"id": job_id(100_001)}, 1, 0, 35),
    "get_job that has failed": ("get_job", {"id": job_id(403_000)}, 1, 0, 35),
    "a look before retry": ("ended", {"id": job_id(403_000)}, 1, 0, 20),
    "retry": ("retry", {"id": job_id(403_000), "delay": 0.0, "ended": ENDED}, 1, 0, 40),
    "intern": ("intern", {"name": "q7"}, 1, 0, 20),
    "notify": ("notify", {"queue": 3, "notify": True}, 1, 0, 20),
    "retry_many": ("retry_many", {"ids": [job_id(n) for n in range(403_000, 403_100)], "delay": 0.0}, 100, 25, 40),
    "cancel_many": ("cancel_many", {"ids": [job_id(n) for n in range(401_000, 401_100)], "mark": -1}, 100, 45, 60),
    "failures": ("failures", {"id": job_id(403_000), "limit": 20}, 1, 0, 20),
    "search_all": ("search_all", SEARCH, 20, 1, 30),
    "search_pending": ("search_pending", SEARCH | {"before": job_id(400_001)}, 20, 12, 60),
    "search_running": ("search_running", SEARCH, 20, 6, 60),
    "search_completed": ("search_completed", SEARCH, 20, 6, 60),
    "search_failed": ("search_failed", SEARCH, 20, 6, 60),
    "search_cancelled": ("search_cancelled", SEARCH, 0, 6, 60),
    "listed_whole": ("listed_whole", {"ids": NEWEST}, 20, 70, 60),
    "listed_brief": ("listed_brief", {"ids": NEWEST}, 20, 70, 60),
    "listed_within": ("listed_within", {"ids": NEWEST, "bytes": 100}, 20, 70, 60),
}
LOOKS = ("search_", "listed_", "failures", "retry_many", "cancel_many")
ON_USERS_CONNECTIONS = [
    case
    for case in HOT
    if case.split()[0]
    in {"claim", "finish", "enqueue", "enqueue_within", "enqueue_checked", "cancel", "get_job", "retry"}
    or case.startswith(LOOKS)
] + ["clear", "intern", "notify", "next_due", "promote", "accepted", "unlocked"]

CASES = [(case, True) for case in HOT if not case.startswith(LOOKS)] + [(case, False) for case in ON_USERS_CONNECTIONS]


@pytest.mark.parametrize(("case", "pinned"), CASES, ids=[f"{c}-{'pinned' if p else 'default'}" for c, p in CASES])
def test_a_hot_statement_reads_no_large_table_and_few_pages(large: str, case: str, pinned: bool) -> None:
    name, params, rows, each, beside = HOT[case]
    with psycopg.connect(large, autocommit=True) as connection:
        connection.execute("vacuum dbjobq.lease")  # of what other cases have rolled back
    plan = explain(large, name, params, pinned=pinned)
    whole = [node for node in plan.nodes if node.table in LARGE and node.type in {"Seq Scan", "Bitmap Heap Scan"}]
    assert whole == []
    sorted_ = [node for node in plan.nodes if "Sort" in node.type and node.rows > max(rows, 1)]
    assert sorted_ == []
    assert plan.shared <= rows * each + beside
    most = max((node.rows for node in plan.nodes if node.table in LARGE), default=0)
    assert most <= 2 * max(rows, 10)


@pytest.mark.parametrize("pinned", [True, False])
@pytest.mark.parametrize("name", ["claim", "claim_after"])
def test_a_claim_walks_its_index_in_order(large: str, name: str, pinned: bool) -> None:
    plan = explain(large, name, HOT[name][1], pinned=pinned)
    assert "ready_claim" in plan.indexes()
    first = next(n for n, node in enumerate(plan.nodes) if node.by == "ready_claim")
    limits = [n for n, node in enumerate(plan.nodes) if node.type == "Limit" and n < first]
    assert limits
    assert not [node for node in plan.nodes[limits[0] : first] if "Sort" in node.type]
    read = [
        node for node in plan.of("ready") if node.rows or node.type == "ModifyTable"
    ]  # no job is looked for elsewhere
    assert {node.type for node in read} == {"Index Scan", "Tid Scan", "ModifyTable"}
    assert {node.type for node in plan.of("job")} == {"Index Scan"}


NONE_SUCH = SEARCH | {"type": "rare"}
DOCTOR = ["doctor_overdue", "doctor_stale", "doctor_states", "doctor_orphans", "doctor_types"]

# name, parameters, pages allowed, whether it is sent with LOOKING_UP
BOUNDED: dict[str, tuple[str, dict[str, Any], int, bool]] = {
    **{
        f"{name} of a type that there is not": (name, NONE_SUCH, 41_000, False)
        for name in ("search_all", "search_running", "search_completed", "search_failed")
    },
    "search_pending where none of the newest wait": ("search_pending", SEARCH, 75_000, False),
    "waiting": ("waiting", {}, 2_000, False),
    "glance": ("glance", {}, 8_000, True),
    "glance_queues": ("glance_queues", {}, 130_000, True),
    **{name: (name, {}, 155_000, True) for name in DOCTOR},
}


@pytest.mark.parametrize("case", list(BOUNDED))
def test_a_look_is_bounded_whatever_there_is(large: str, case: str) -> None:
    """Beside 600,000 jobs; each of these tables has more rows than may be looked at, or a million pages to be read."""
    name, params, allowed, looking_up = BOUNDED[case]
    plan = explain(large, name, params, pinned=False, first=LOOKING_UP if looking_up else b"")
    assert plan.shared <= allowed
    rows = max((node.rows for node in plan.nodes if node.table in LARGE), default=0)
    assert rows <= 110_000


def test_a_doctor_s_visit_reads_less_than_a_million_pages(large: str) -> None:
    names = [*DOCTOR, "glance_queues"]
    assert sum(explain(large, name, {}, pinned=False, first=LOOKING_UP).shared for name in names) < 400_000


def test_jobs_that_wait_are_not_looked_up_before_they_are_sorted_unless_a_type_is_asked_for(large: str) -> None:
    plan = explain(large, "search_waiting", SEARCH | {"scan": None}, pinned=False)
    assert sum(node.rows for node in plan.of("job")) <= 20


def test_all_jobs_of_a_rare_type_are_found_by_pages(large: str) -> None:
    """Each statement is bounded; together they read a page or so for each job, and no body twice."""
    with PostgresStorage(large) as storage, psycopg.connect(large, autocommit=True) as connection:
        rare = job_id(402_001)
        connection.execute("update dbjobq.job set type = 'rare' where id = %s", [rare])
        try:
            queue = JobQueue(storage)
            assert [found.id for found in queue.list_jobs(type="rare", limit=2)] == [rare]
            assert [found.id for found in queue.list_jobs("failed", type="rare")] == [rare]
            found = storage.look(5, Bounds(10_000, None), status=None, queue=None, type="rare").run()
            assert (found.jobs, found.unsearched) == ([], True)
            found = storage.look(5, Bounds(300_000, None), status=None, queue=None, type="rare").run()
            assert ([job.id for job in found.jobs], found.unsearched) == ([rare], True)
            found = storage.look(5, Bounds(10**9, None), status=None, queue=None, type="rare").run()
            assert ([job.id for job in found.jobs], found.unsearched) == ([rare], False)
        finally:
            connection.execute("update dbjobq.job set type = 'f' where id = %s", [rare])


def test_what_waits_is_listed_newest_first_though_much_has_ended_since(large: str) -> None:
    with PostgresStorage(large) as storage:
        queue = JobQueue(storage)
        newest = [job_id(number) for number in range(400_000, 399_997, -1)]
        assert [job.id for job in queue.list_jobs("pending", limit=3)] == newest
        assert len(queue.list_jobs("pending", limit=10_500)) == 10_500
        found = storage.look(3, Bounds(10_000, None), status="pending", queue=None, type=None).run()
        assert (found.jobs, found.unsearched) == ([], True)


def test_counts_for_people_say_what_they_are(large: str) -> None:
    with PostgresStorage(large) as storage:
        glance = storage.glance().run()
    said = {status: str(count) for status, count in glance.statuses.items()}
    assert said["pending"] == "100,000+"
    assert (said["running"], said["failed"], said["cancelled"]) == ("2,000", "3,999", "0")
    assert said["completed"].startswith("~19")
    assert {str(queue.scheduled) for queue in glance.queues} == {"100,000+", "0"}
    assert {str(queue.ready) for queue in glance.queues} == {"0", "10,000", "10,000+"}


BODIES = """
insert into dbjobq.job (position, queue, priority, max_retries, id, type, unique_key, data)
select {0} + n, {1}, 5, 3, pg_temp.id({0} + n), 'f', {2}, '{{}}' from generate_series(1, {3}) as n;
"""
BESIDE = {
    "ready": BODIES
    + """
insert into dbjobq.ready (position, queue, priority, job_id)
select {0} + n, {1}, 5, pg_temp.id({0} + n) from generate_series(1, {3}) as n;
""",
    "scheduled": BODIES
    + """
insert into dbjobq.scheduled (run_at, enqueued, queue, priority, job_id)
select now() + interval '1 s' * n, {0} + n, {1}, 9, pg_temp.id({0} + n) from generate_series(1, {3}) as n;
""",
    "running": BODIES
    + """
insert into dbjobq.lease (claim, claimed_at, worker, attempts, job_id)
select n / 100, now(), 1, 0, pg_temp.id({0} + n) from generate_series(1, {3}) as n;
""",
    "finished": BODIES
    + """
insert into dbjobq.done (started_at, claim, worker, attempts, status, job_id)
select now(), n / 100, 1, 0, 2 + n % 3, pg_temp.id({0} + n) from generate_series(1, {3}) as n;
""",
    "keys": """
insert into dbjobq.unique_key (key, job_id)
select 'k' || {0} + n, pg_temp.id({0} + n) from generate_series(1, {3}) as n;
""",
}
IN_THE_WAY: dict[str, list[tuple[str, str, str]]] = {
    # what there is, its queue, its key
    "ready": [("ready", "1", "null")],
    "future, of higher priority": [("scheduled", "1", "null")],
    "running": [("running", "1", "null")],
    "finished": [("finished", "1", "null")],
    "ready in another queue": [("ready", "2", "null")],
    "ready with unique keys": [("ready", "1", "'k' || {0} + n"), ("keys", "", "")],
    "running with unique keys": [("running", "1", "'k' || {0} + n"), ("keys", "", "")],
}
IN_THE_WAY["all of them"] = [kind for kinds in IN_THE_WAY.values() for kind in kinds]


def claim_of_ten(databases: Databases, kinds: list[tuple[str, str, str]], rows: int) -> tuple[int, int]:
    """Return the pages that a claim of 10 out of 1,000 touches, pinned and not, with so many of each kind beside."""
    with databases.fresh() as dsn:
        rows_beside = IDS + BESIDE["ready"].format(0, 1, "null", 1000)
        for number, (what, queue, key) in enumerate(kinds):
            first = 10_000_000 * (number + 1 - (what == "keys"))  # keys belong to the jobs named before them
            rows_beside += BESIDE[what].format(first, queue, key.format(first), rows)
        with psycopg.connect(dsn, autocommit=True) as connection:
            fill(connection, rows_beside)
            connection.execute("vacuum analyze")
        pinned, default = (
            explain(dsn, "claim", CLAIM | {"limit": 10}, pinned=pinned).shared for pinned in (True, False)
        )
        return pinned, default


@pytest.mark.parametrize("rows", [20_000, pytest.param(1_000_000, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
@pytest.mark.parametrize("kind", list(IN_THE_WAY))
def test_what_is_in_the_way_does_not_make_a_claim_dearer(databases: Databases, kind: str, rows: int) -> None:
    """With 20,000 it touches 104 to 125 pages, with a million 114 to 135; 104 with nothing beside them.

    What is more are levels of the indexes: a body is found, and a lease added, by one page more for each.
    """
    found, empty = claim_of_ten(databases, IN_THE_WAY[kind], rows), claim_of_ten(databases, [], rows)
    assert found[0] <= empty[0] * 1.4
    assert found[1] <= empty[1] * 1.4
