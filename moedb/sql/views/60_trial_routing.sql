-- title: Routing in trials
-- answers: How often does each value of a label choose each expert, trial by trial?
-- column run_id: the trial's run
-- column variant: the trial's variant
-- column experts: the trial's number of experts
-- column gate: the trial's gate, weighted or unweighted
-- column balance: the trial's load balancing loss: mean, count or sum
-- column aux_coefficient: the factor of that loss; null where the run does not say
-- column trial: the trial
-- column key: the label's key, of an example, a token or a run
-- column value: the label's value
-- column layer: the MoE layer
-- column expert: the expert, those that the value never chose included
-- column n_decisions: N(e,c), tokens with this value that chose the expert
create or replace view trial_routing as
with decisions as (
    select
        class_routing.run_id,
        class_routing.key,
        class_routing.value,
        class_routing.layer,
        class_routing.expert,
        class_routing.n_decisions
    from class_routing
    where class_routing.selection = 'all'
    union all
    -- every expert, so that those that the value never chose have a row too
    select
        class_sizes.run_id,
        class_sizes.key,
        class_sizes.value,
        experts.layer,
        experts.expert,
        0 as n_decisions
    from class_sizes
    join experts using (run_id)
    where class_sizes.selection = 'all'
)

select
    trials.run_id,
    trials.variant,
    trials.experts,
    trials.gate,
    trials.balance,
    trials.aux_coefficient,
    trials.trial,
    decisions.key,
    decisions.value,
    decisions.layer,
    decisions.expert,
    cast(sum(decisions.n_decisions) as bigint) as n_decisions
from decisions
join trials using (run_id)
group by
    trials.run_id,
    trials.variant,
    trials.experts,
    trials.gate,
    trials.balance,
    trials.aux_coefficient,
    trials.trial,
    decisions.key,
    decisions.value,
    decisions.layer,
    decisions.expert;
