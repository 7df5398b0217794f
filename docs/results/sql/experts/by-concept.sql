-- What is chosen for each concept with one neuron, with intervals by documents.
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
    key, value,
    any_value(experts.layer) as layer, any_value(experts.candidate) as expert,
    any_value(experts.f1) as f1, any_value(experts.f1_low) as f1_low,
    any_value(experts.f1_high) as f1_high, any_value(experts.f1_always_yes) as always_yes,
    any_value(experts.n_documents) as n_documents,
    max(other.f1) filter (other.model = 'active') as active,
    max(other.f1_low) filter (other.model = 'active') as active_low,
    max(other.f1_high) filter (other.model = 'active') as active_high,
    max(other.f1) filter (other.model = 'total') as total,
    max(other.f1_low) filter (other.model = 'total') as total_low,
    max(other.f1_high) filter (other.model = 'total') as total_high
from chosen as experts
semi join common using (key, value)
left join chosen as other using (key, value, protocol, permutation, k)
where experts.probe = 'experts' and other.probe = 'matched'
    and protocol = 'documents' and permutation = 0 and k = 1
group by key, value
order by key = $key desc, f1 desc, key, value
