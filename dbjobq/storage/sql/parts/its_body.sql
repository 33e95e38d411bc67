-- its_body: the body for a `place` in `ready`, unless somebody who may only enqueue has forged that place for a job that has
-- another, or has ended (docs/decisions/0013). A job's first place was written by the transaction that wrote its body, so
-- that it costs nothing to tell; all later ones (`enqueued`) are a worker's. Where the transactions differ (a dump was
-- restored, or it is forged) the job is looked for in all places, and found in one: its own.
left join lateral (select xmin as written, * from {schema}.job where job.id = place.job_id offset 0) as body
        on place.enqueued is not null or place.written = body.written
        or not {schema}.stands_elsewhere(place.job_id, place.tid, place.queue, place.priority, place.position)
