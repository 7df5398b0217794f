-- title: Trials
-- answers: Which complete run is each trial of each model and training, where a job has trials?
-- column run_id: the run; the newest complete one where the trial was captured more than once
-- column variant: the run's label variant; empty without one
-- column experts: the run's label experts: the number of experts it was trained with
-- column gate: the run's label gate: whether expert outputs are multiplied by the router's
--   probability; weighted without one, since there was nothing else before there was the label
-- column balance: the run's label balance: the load balancing loss that it was trained with; mean
--   without one, for the same reason
-- column aux_coefficient: the run's label aux_coefficient: the factor of that loss; null without one
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
        coalesce(max(case when run_labels.key = 'gate' then run_labels.value end), 'weighted')
            as gate,
        coalesce(max(case when run_labels.key = 'balance' then run_labels.value end), 'mean')
            as balance,
        try_cast(
            max(case when run_labels.key = 'aux_coefficient' then run_labels.value end) as double
        ) as aux_coefficient,
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
        gate,
        balance,
        aux_coefficient,
        trial,
        row_number() over (
            partition by variant, experts, gate, balance, aux_coefficient, trial
            order by created_at desc, run_id desc
        ) as age
    from labelled_runs
    where experts is not null and trial is not null
)

select run_id, variant, experts, gate, balance, aux_coefficient, trial
from captures
where age = 1;
