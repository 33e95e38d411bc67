-- rescue_needed: is there a lease whose worker is gone, or whose own time is up? Reads the lease table, which holds
-- only what runs now.
select exists (
    select from {schema}.lease
     where case when expires_at is not null then expires_at < clock_timestamp()
                else not exists (select from {schema}.worker
                                  where worker.id = lease.worker and worker.expires_at >= clock_timestamp()) end
)
