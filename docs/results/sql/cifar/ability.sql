-- How well experts classify whole classes, by how much of the class the router gives them.
-- an expert is the main one of a class of which it gets half or more
with experts as (
    select
        variant, experts, gate, balance, aux_coefficient, trial, value, routed, accuracy,
        max(case when routed >= 0.5 then accuracy end) over (
            partition by variant, experts, gate, balance, aux_coefficient, trial, value
        ) as accuracy_of_main
    from expert_accuracy()
)

select
    variant, experts, gate, balance, aux_coefficient, count(distinct trial) as n_trials,
    sum(routed * accuracy order by routed, accuracy) / sum(routed order by routed) as as_routed,
    avg(accuracy order by accuracy) as any_expert,
    avg(accuracy order by accuracy) filter (routed >= 0.5) as main_expert,
    count(*) filter (routed < 0.1) as n_hardly_chosen,
    avg(accuracy order by accuracy) filter (routed < 0.1) as hardly_chosen,
    avg(accuracy_of_main order by accuracy_of_main) filter (routed < 0.1) as main_of_the_same
from experts
group by all
order by all
