-- echo: say something to all who listen that means nothing: does it arrive?
select pg_notify({channel}, 'e')
