-- What is alike in the probes of the experts and of a twin's groups on their tokens: how many
-- probes have the same tokens, and of how many concepts the intervals overlap.
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

samples as (
    select
        models.model as twin, count(*) as n_probes,
        count(*) filter (
            expert.n_train = other.n_train and expert.n_selection = other.n_selection
            and expert.n_test = other.n_test and expert.n_yes = other.n_yes
        ) as n_same
    from probe_scores as expert
    join probe_scores as other
        using (layer, candidate, key, value, protocol, permutation, k)
    join models on other.run_id = models.run_id
    where expert.run_id = $mixture and expert.probe = 'experts' and other.probe = 'matched'
    group by all
),

intervals as (
    select
        other.model as twin, count(*) as n_concepts,
        count(*) filter (key = $key) as n_of_key,
        count(*) filter (
            experts.f1_low <= other.f1_high and other.f1_low <= experts.f1_high
        ) as n_overlap
    from chosen as experts
    semi join common using (key, value)
    join chosen as other using (key, value, protocol, permutation, k)
    where experts.probe = 'experts' and other.probe = 'matched'
        and protocol = 'documents' and permutation = 0 and k = 1
    group by all
)

select twin, n_probes, n_same, n_concepts, n_of_key, n_overlap
from samples
join intervals using (twin)
order by twin
