-- Each expert beside the group of a twin's neurons that saw its tokens.
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

pairs as (
    select
        models.model as twin, expert.k, key, value, expert.permutation > 0 as is_shuffled,
        expert.f1 as f1, other.f1 as other_f1,
        expert.balanced_accuracy as accuracy, other.balanced_accuracy as other_accuracy
    from probe_scores as expert
    join probe_scores as other using (layer, candidate, key, value, protocol, permutation, k)
    join models on other.run_id = models.run_id
    where expert.run_id = $mixture and expert.probe = 'experts' and other.probe = 'matched'
        and protocol = 'documents'
),

concepts as (
    select
        twin, k, is_shuffled, key, value, count(*) as n,
        avg(f1) as experts, avg(other_f1) as others, avg(f1 - other_f1) as lead,
        avg((f1 > other_f1)::int + 0.5 * (f1 = other_f1)::int) as ahead,
        avg(accuracy - other_accuracy) as accuracy_lead
    from pairs
    semi join common using (key, value)
    group by all
)

select
    twin, k, case when is_shuffled then 'shuffled' else 'true' end as labels,
    count(*) as n_concepts, cast(sum(n) as bigint) as n_pairs,
    avg(experts) as experts, avg(others) as others,
    avg(lead) as lead,
    avg(lead) - (1.96 + 2.37 / (count(*) - 1)) * stddev_samp(lead) / sqrt(count(*)) as lead_low,
    avg(lead) + (1.96 + 2.37 / (count(*) - 1)) * stddev_samp(lead) / sqrt(count(*)) as lead_high,
    cast(round(100 * avg(ahead)) as integer) as percent_ahead,
    avg(accuracy_lead) as accuracy_lead
from concepts
where k in (1, cast($most as integer))
group by all
order by twin, k, labels desc
