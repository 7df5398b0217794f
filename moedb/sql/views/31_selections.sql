-- title: Selections of examples
-- answers: Which examples does each value of the parameter split read?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column example_id: an example of it
create or replace view selections as
select examples.run_id, 'all' as selection, examples.example_id
from examples
union all
select examples.run_id, 'default' as selection, examples.example_id
from examples
where examples.split <> 'corrupted'
union all
select examples.run_id, examples.split as selection, examples.example_id
from examples
where examples.split not in ('all', 'default');
