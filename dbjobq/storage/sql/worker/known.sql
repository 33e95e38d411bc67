-- known: is this worker one of this database's? Asked where a direct way may lead elsewhere. index: worker's primary key.
select exists (select from {schema}.worker where id = %(worker)s::int and name = %(name)s)
