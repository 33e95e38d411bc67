// Graphile Worker's side of graphile.py: `node graphile.mjs migrate|work`. libpq's PG* variables name the database.
import { writeSync } from "node:fs";
import { run, runMigrations } from "graphile-worker";
import pg from "pg";

const JOBS = 24; // as its page on performance has it, and so all of this

const witness = Number(process.env.DBJOBQ_COMPARE_WITNESS);
const expected = Number(process.env.DBJOBQ_COMPARE_EXPECTED ?? "0");
let begun = 0;

// Node's hrtime is CLOCK_MONOTONIC, as Python's time.monotonic is.
const tell = (word) => writeSync(witness, `${word} ${Number(process.hrtime.bigint()) / 1e9}\n`);

const taskList = {
  async noop() {
    begun += 1;
    if (begun === 1) tell("first");
    if (begun === expected) tell("last");
  },
  async stamp({ number }) {
    tell(number);
  },
};

const pgPool = new pg.Pool({ max: JOBS + 1 });
pgPool.on("error", console.error);
pgPool.on("connect", (client) => client.on("error", console.error)); // or it warns that nobody listens
if (process.argv[2] === "migrate") {
  await runMigrations({ pgPool });
  await pgPool.end();
} else {
  const batches = { localQueue: { size: 500 }, completeJobBatchDelay: 0, failJobBatchDelay: 0 };
  const worker = { pgPool, taskList, concurrentJobs: JOBS, ...batches };
  const runner = await run({ taskList, preset: { worker } });
  await runner.promise;
}
