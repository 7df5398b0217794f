-- How far experts are ahead of a control, step by step.
-- an interval is the mean over concepts with Student's t for 95 %, expanded to the first order
with models (model, run_id) as (
    values ('mixture', $mixture), ('active', $active), ('total', $total)
),

chosen as (
    select models.model, probe_choices.*
    from probe_choices
    join models using (run_id)
    where probe in ('experts', 'shared', 'whole', 'groups', 'matched')
),

-- the concepts that every set of probes has
common as (
    select key, value
    from chosen
    where permutation = 0
    group by all
    having count(distinct (model, probe, protocol, k)) = (
        select count(distinct (model, probe, protocol, k)) from chosen where permutation = 0
    )
),

steps (step, protocol, counted, control) as (
    values
    (1, 'herbst2026', 'best on test', 'whole'),
    (2, 'herbst2026', 'best on test', 'groups'),
    (3, 'herbst2026', 'best on test', 'matched'),
    (4, 'documents', 'chosen', 'matched'),
    (5, 'herbst2026', 'mean by tokens', 'whole'),
    (6, 'herbst2026', 'mean by tokens', 'matched'),
    (7, 'documents', 'mean by tokens', 'matched')
),

counted as (
    select
        chosen.model, chosen.probe, key, value, k, steps.*, permutation > 0 as is_shuffled,
        avg(case counted
            when 'best on test' then f1_best_on_test
            when 'chosen' then f1
            else f1_mean
        end) as f1
    from chosen
    semi join common using (key, value)
    join steps using (protocol)
    group by all
),

leads as (
    select
        dense.model as twin, k, step, protocol, counted, control, key, value, is_shuffled,
        experts.f1 as experts, dense.f1 as others, experts.f1 - dense.f1 as lead
    from counted as dense
    join counted as experts using (step, protocol, counted, control, k, key, value, is_shuffled)
    where dense.model <> 'mixture' and dense.probe = control
        and experts.probe = 'experts'
),

shuffled as (
    select twin, k, step, avg(lead) as lead_shuffled
    from leads
    where is_shuffled
    group by all
)

select
    twin, k, step, protocol, counted, control, count(*) as n_concepts,
    avg(experts) as experts, avg(others) as others,
    avg(lead) as lead,
    avg(lead) - (1.96 + 2.37 / (count(*) - 1)) * stddev_samp(lead) / sqrt(count(*)) as lead_low,
    avg(lead) + (1.96 + 2.37 / (count(*) - 1)) * stddev_samp(lead) / sqrt(count(*)) as lead_high,
    any_value(lead_shuffled) as lead_shuffled
from leads
join shuffled using (twin, k, step)
where not is_shuffled and k in (1, cast($most as integer))
group by all
order by twin, k, step
