-- The concepts of the page: how many tokens and documents each has.
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

of_concepts as (
    select key, value, count(*) as n_tokens, count(distinct example_id) as n_documents
    from labels
    where run_id = $mixture
    group by all
)

select key, value, n_tokens, n_documents
from of_concepts
semi join common using (key, value)
order by key = $key desc, n_tokens desc, key, value
