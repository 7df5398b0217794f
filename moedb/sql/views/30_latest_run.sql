-- title: Latest run
-- answers: Which complete run was started last? Runs made from another run are left out.
-- column run_id: the run
create or replace view latest_run as
select run_id
from runs
where status = 'complete' and parent_run_id is null
order by created_at desc, run_id desc
limit 1;
