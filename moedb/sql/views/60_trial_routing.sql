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
-- an example and a token may carry the same label: count the token once
with labelled_tokens as (
    select distinct
        trials.run_id,
        trials.variant,
        trials.experts,
        trials.gate,
        trials.balance,
        trials.aux_coefficient,
        trials.trial,
        labels.key,
        labels.value,
        labels.token_idx
    from labels
    join trials using (run_id)
),

-- a map of the counts: to add rows of 0 to rows of counts would read these twice, and DuckDB does
-- not carry a condition on the key down to labels that are read twice
classes as (
    select
        labelled_tokens.run_id,
        labelled_tokens.variant,
        labelled_tokens.experts,
        labelled_tokens.gate,
        labelled_tokens.balance,
        labelled_tokens.aux_coefficient,
        labelled_tokens.trial,
        labelled_tokens.key,
        labelled_tokens.value,
        routing.layer,
        histogram(routing.expert) as decisions
    from labelled_tokens
    join routing using (run_id, token_idx)
    group by all
)

select
    classes.run_id,
    classes.variant,
    classes.experts,
    classes.gate,
    classes.balance,
    classes.aux_coefficient,
    classes.trial,
    classes.key,
    classes.value,
    classes.layer,
    experts.expert,
    cast(coalesce(classes.decisions[experts.expert], 0) as bigint) as n_decisions
from classes
join experts using (run_id, layer);
