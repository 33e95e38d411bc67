#!/bin/bash
# Build the image, run docker-compose.yml with four workers, and see jobs completed. Needs a Docker daemon.
# POSTGRES_IMAGE and PYTHON_IMAGE choose the images.
set -euo pipefail
cd "$(dirname "$0")/.."
JOBS=200 WORKERS=4 SECONDS_ALLOWED=60

docker version >/dev/null || { echo "compose.sh: no Docker daemon answers" >&2; exit 1; }
read -ra compose <<<"$(.ci/fetch-compose.sh)"
compose+=(--project-name "dbjobq-ci-$$")
log=$(mktemp)
POSTGRES_PORT=$(python3 -c 'import socket; print(socket.create_server(("127.0.0.1", 0)).getsockname()[1])')
export POSTGRES_PORT DOCKER_BUILDKIT=0 # the old builder finds local images without asking a registry

finish() {
    code=$?
    [ "$code" = 0 ] || "${compose[@]}" logs --tail 50 || true
    "${compose[@]}" down --volumes --timeout 5 >/dev/null 2>&1 || true
    rm -f "$log"
    exit "$code"
}
trap finish EXIT

inside() { # a Python script on standard input, in a container of the worker's image
    "${compose[@]}" run --rm -T --no-deps --entrypoint python3 worker -
}

"${compose[@]}" build >"$log" 2>&1 || { cat "$log" >&2; exit 1; }
"${compose[@]}" up --detach --no-build --scale "worker=$WORKERS"
running=$("${compose[@]}" ps --quiet worker | wc -l)
[ "$running" = "$WORKERS" ] || { echo "compose.sh: $running workers instead of $WORKERS" >&2; exit 1; }

inside <<EOS
import time
from dbjobq import JobQueue, PostgresStorage
from examples.tasks import greet, nap

storage = PostgresStorage()
queue = JobQueue(storage)
queue.enqueue_many(nap, [{"seconds": 0.01}] * ($JOBS - 1))
greeting = queue.enqueue(greet, name="compose")
deadline = time.monotonic() + $SECONDS_ALLOWED
while queue.count("completed") < $JOBS:
    assert time.monotonic() < deadline, queue.stats()
    time.sleep(0.1)
job = queue.get_job(greeting)
assert job is not None and job.result == "Hello, compose!", job
storage.close()
print("$JOBS jobs completed by $WORKERS workers")
EOS

begin=$SECONDS
"${compose[@]}" stop worker >/dev/null 2>&1
[ $((SECONDS - begin)) -lt 15 ] || { echo "compose.sh: the workers did not stop at once" >&2; exit 1; }
