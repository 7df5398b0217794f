-- How many neurons tell a concept by themselves, and how many of these tell one alone.
with models (model, run_id) as (
    values ('mixture', $mixture), ('active', $active), ('total', $total)
),

asked as (
    select model, probe, run_id, count(distinct (layer, candidate, neuron)) as n_neurons
    from probe_scores
    join models using (run_id)
    where k = 1 and permutation = 0 and protocol = 'documents'
        and probe in ('experts', 'shared', 'whole', 'groups', 'matched')
    group by all
),

told as (
    select $mixture as run_id, * from polysemanticity(run := $mixture)
    union all
    select $active as run_id, * from polysemanticity(run := $active)
    union all
    select $total as run_id, * from polysemanticity(run := $total)
),

by_chance as (
    select
        run_id, probe,
        count(distinct (permutation, layer, candidate, neuron))
        / count(distinct permutation) as n_shuffled
    from probe_scores
    where k = 1 and permutation > 0 and protocol = 'documents' and balanced_accuracy >= 0.8
    group by all
)

select
    model, probe, n_neurons, count(told.neuron) as n_telling,
    cast(round(coalesce(any_value(n_shuffled), 0)) as integer) as telling_shuffled,
    count(told.neuron) filter (n_concepts = 1) as tell_one,
    cast(round(
        100 * count(told.neuron) filter (n_concepts = 1) / nullif(count(told.neuron), 0)
    ) as integer) as percent_one,
    avg(n_concepts) as mean_concepts, max(n_concepts) as most_concepts
from asked
left join told using (run_id, probe)
left join by_chance using (run_id, probe)
group by model, probe, n_neurons
order by model = 'mixture' desc, model, probe
