-- What each set of probes gives: means over the concepts.
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
)

select
    model, probe, protocol, k,
    cast(round(avg(n_candidates)) as integer) as candidates,
    avg(f1_best_on_test) filter (permutation = 0) as best_on_test,
    avg(f1) filter (permutation = 0) as chosen,
    avg(f1_mean) filter (permutation = 0) as mean_by_tokens,
    avg(f1_mean_each) filter (permutation = 0) as mean_each,
    avg(f1_always_yes) filter (permutation = 0) as always_yes,
    avg(f1_best_on_test) filter (permutation > 0) as best_shuffled,
    avg(f1) filter (permutation > 0) as chosen_shuffled,
    avg(balanced_accuracy) filter (permutation = 0) as accuracy,
    avg(balanced_accuracy) filter (permutation > 0) as accuracy_shuffled
from chosen
semi join common using (key, value)
where k in (1, cast($most as integer))
group by model, probe, protocol, k
order by k, protocol, model = 'mixture' desc, model, probe = 'whole' desc, probe
