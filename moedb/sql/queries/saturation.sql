-- title: Router saturation
-- answers: How many of a token's experts are the same in two runs, such as two checkpoints?
-- subject: experts
-- param run_b varchar: the run to compare with, such as that of the last checkpoint
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- column layer: the MoE layer, of the same number of experts and top k in both runs
-- column top_k: k, experts chosen for each token
-- column n_tokens: T, tokens of both runs, the same at the same position of the same example
-- column n_unmatched: tokens of the run that the other lacks; they are left out
-- column n_shared: experts that both runs chose for a token, over all tokens
-- column saturation: n_shared / (kT)
-- column first_saturation: share of the tokens whose first-ranked expert is the same
-- column uniform: k / E, the saturation of two routers that choose at random
-- rows: layer
-- size: n_tokens
-- shares: saturation, first_saturation
-- source: OLMoE
with selected_examples as (
    select selections.example_id
    from selections
    where
        selections.run_id = cast($run as varchar)
        and selections.selection = coalesce(cast($split as varchar), 'default')
),

selected_tokens as (
    select
        tokens.token_idx,
        tokens.example_id,
        tokens.position,
        tokens.token_id
    from tokens
    where
        tokens.run_id = cast($run as varchar)
        and tokens.example_id in (select selected_examples.example_id from selected_examples)
),

other_tokens as (
    select
        tokens.example_id,
        tokens.position,
        tokens.token_id
    from tokens
    where tokens.run_id = cast($run_b as varchar)
),

matched_tokens as (
    select selected_tokens.token_idx
    from selected_tokens
    join other_tokens
        on selected_tokens.example_id = other_tokens.example_id
        and selected_tokens.position = other_tokens.position
        and selected_tokens.token_id is not distinct from other_tokens.token_id
),

token_totals as (
    select
        count(*) as n_tokens,
        (select count(*) from selected_tokens) - count(*) as n_unmatched
    from matched_tokens
),

selected_layers as (
    select
        moe_layers.layer,
        moe_layers.n_experts,
        moe_layers.top_k
    from moe_layers
    join moe_layers as other_layers
        on moe_layers.layer = other_layers.layer
        and moe_layers.n_experts = other_layers.n_experts
        and moe_layers.top_k = other_layers.top_k
    where
        moe_layers.run_id = cast($run as varchar)
        and other_layers.run_id = cast($run_b as varchar)
),

shared as (
    select
        shared_decisions.layer,
        shared_decisions.n_shared,
        shared_decisions.n_first
    from shared_decisions
    where
        shared_decisions.run_id = cast($run as varchar)
        and shared_decisions.run_b = cast($run_b as varchar)
        and shared_decisions.selection = coalesce(cast($split as varchar), 'default')
),

final as (
    select
        selected_layers.layer,
        selected_layers.n_experts,
        selected_layers.top_k,
        token_totals.n_tokens,
        token_totals.n_unmatched,
        coalesce(shared.n_shared, 0) as n_shared,
        coalesce(shared.n_first, 0) as n_first
    from selected_layers
    cross join token_totals
    left join shared using (layer)
)

select
    final.layer,
    final.top_k,
    final.n_tokens,
    final.n_unmatched,
    final.n_shared,
    cast(final.n_shared as double) / nullif(final.top_k * final.n_tokens, 0) as saturation,
    cast(final.n_first as double) / nullif(final.n_tokens, 0) as first_saturation,
    cast(final.top_k as double) / final.n_experts as uniform
from final
order by final.layer;
