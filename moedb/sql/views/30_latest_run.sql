-- title: Latest run
-- answers: Which complete run was started last?
-- column run_id: the run
create or replace view latest_run as
select run_id
from runs
where status = 'complete'
order by created_at desc, run_id desc
limit 1;
