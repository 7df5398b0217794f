-- The label that most experts were given.
select
    row_number() over (order by count(*) desc, label) as place,
    label, count(*) as n_experts, sum(count(*)) over () as n_read
from expert_labels
where run_id = $run
group by label
order by place
limit 1
