-- doctor_settings: settings as a new session of this role gets them. Not what this session shows: on a Unix socket it
-- knows of no keepalives.
select name, reset_val as value from pg_settings
