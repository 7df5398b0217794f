-- title: Experts of successive layers
-- answers: How often does a token choose an expert of one MoE layer and one of the next?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column layer: the first of the two MoE layers
-- column next_layer: the MoE layer after it
-- column expert: an expert of layer
-- column next_expert: an expert of next_layer
-- column n_both: tokens that chose both; pairs without any are left out
-- column n_aligned: those that chose both at the same rank
create or replace view layer_pairs as
with following_layers as (
    select
        moe_layers.run_id,
        moe_layers.layer,
        lead(moe_layers.layer) over (
            partition by moe_layers.run_id
            order by moe_layers.layer
        ) as next_layer
    from moe_layers
),

decisions as (
    select
        routing.run_id,
        routing.token_idx,
        routing.layer,
        routing.rank,
        routing.expert,
        following_layers.next_layer
    from routing
    join following_layers using (run_id, layer)
    where following_layers.next_layer is not null
),

pairs as (
    select
        decisions.run_id,
        decisions.token_idx,
        decisions.layer,
        decisions.next_layer,
        decisions.expert,
        next_decisions.expert as next_expert,
        case when decisions.rank = next_decisions.rank then 1 else 0 end as is_aligned
    from decisions
    join routing as next_decisions
        on decisions.run_id = next_decisions.run_id
        and decisions.token_idx = next_decisions.token_idx
        and decisions.next_layer = next_decisions.layer
)

select
    token_selections.run_id,
    token_selections.selection,
    pairs.layer,
    pairs.next_layer,
    pairs.expert,
    pairs.next_expert,
    count(*) as n_both,
    cast(sum(pairs.is_aligned) as bigint) as n_aligned
from pairs
join token_selections using (run_id, token_idx)
group by
    token_selections.run_id,
    token_selections.selection,
    pairs.layer,
    pairs.next_layer,
    pairs.expert,
    pairs.next_expert;
