-- title: Trials
-- answers: Which complete run is each trial of each number of experts, where a job has trials?
-- column run_id: the run; the newest complete one where the trial was captured more than once
-- column variant: the run's label variant; empty without one
-- column experts: the run's label experts: the number of experts it was trained with
-- column trial: the run's label trial
create or replace view trials as
with labelled_runs as (
    select
        runs.run_id,
        runs.created_at,
        coalesce(max(case when run_labels.key = 'variant' then run_labels.value end), '')
            as variant,
        try_cast(max(case when run_labels.key = 'experts' then run_labels.value end) as integer)
            as experts,
        try_cast(max(case when run_labels.key = 'trial' then run_labels.value end) as integer)
            as trial
    from runs
    join run_labels using (run_id)
    where runs.status = 'complete'
    group by runs.run_id, runs.created_at
),

captures as (
    select
        run_id,
        variant,
        experts,
        trial,
        row_number() over (
            partition by variant, experts, trial order by created_at desc, run_id desc
        ) as age
    from labelled_runs
    where experts is not null and trial is not null
)

select run_id, variant, experts, trial
from captures
where age = 1;
