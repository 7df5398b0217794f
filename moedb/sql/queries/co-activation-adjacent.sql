-- title: Co-activation of neighbours in rank
-- answers: Which experts of a layer are chosen next to each other in rank for the same token?
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param layer integer = null: the MoE layer; all when null
-- column layer: the MoE layer
-- column expert_a: an expert
-- column expert_b: another expert of the layer, of larger index
-- column n_adjacent: tokens that chose both at ranks r and r + 1; only pairs with some
-- column n_a: N_a, tokens that chose expert_a
-- column n_b: N_b, tokens that chose expert_b
-- column n_tokens: T, tokens in the selection
-- column p_b_given_a: n_adjacent / N_a
-- column p_a_given_b: n_adjacent / N_b
-- column jaccard: n_adjacent / (N_a + N_b - n_adjacent)
-- column expected: 2 N_a N_b / (k T), if chosen independently: 2 in k of all pairs are adjacent
-- column lift: n_adjacent / expected
-- source: OLMoE, as its code counts
with chosen_run as (
    select coalesce(cast($run as varchar), (select latest_run.run_id from latest_run)) as run_id
),

selected_tokens as (
    select
        tokens.run_id,
        tokens.token_idx
    from tokens
    join chosen_run using (run_id)
    join examples using (run_id, example_id)
    where case
        when cast($split as varchar) is null then examples.split <> 'corrupted'
        when cast($split as varchar) = 'all' then true
        else examples.split = cast($split as varchar)
    end
),

selected_layers as (
    select
        moe_layers.run_id,
        moe_layers.layer,
        moe_layers.n_experts,
        moe_layers.top_k
    from moe_layers
    join chosen_run using (run_id)
    where cast($layer as integer) is null or moe_layers.layer = cast($layer as integer)
),

token_total as (
    select count(*) as n_tokens
    from selected_tokens
),

decisions as (
    select
        routing.token_idx,
        routing.layer,
        routing.rank,
        routing.expert
    from routing
    join selected_tokens using (run_id, token_idx)
    where cast($layer as integer) is null or routing.layer = cast($layer as integer)
),

expert_counts as (
    select
        decisions.layer,
        decisions.expert,
        count(*) as n_decisions
    from decisions
    group by decisions.layer, decisions.expert
),

pair_counts as (
    select
        decisions_a.layer,
        least(decisions_a.expert, decisions_b.expert) as expert_a,
        greatest(decisions_a.expert, decisions_b.expert) as expert_b,
        count(*) as n_adjacent
    from decisions as decisions_a
    join decisions as decisions_b
        on decisions_a.layer = decisions_b.layer
        and decisions_a.token_idx = decisions_b.token_idx
        and decisions_a.rank + 1 = decisions_b.rank
    group by
        decisions_a.layer,
        least(decisions_a.expert, decisions_b.expert),
        greatest(decisions_a.expert, decisions_b.expert)
),

final as (
    select
        pair_counts.layer,
        pair_counts.expert_a,
        pair_counts.expert_b,
        pair_counts.n_adjacent,
        counts_a.n_decisions as n_a,
        counts_b.n_decisions as n_b,
        token_total.n_tokens,
        cast(pair_counts.n_adjacent as double) / counts_a.n_decisions as p_b_given_a,
        cast(pair_counts.n_adjacent as double) / counts_b.n_decisions as p_a_given_b,
        cast(pair_counts.n_adjacent as double)
            / (counts_a.n_decisions + counts_b.n_decisions - pair_counts.n_adjacent) as jaccard,
        cast(2 as double) * counts_a.n_decisions * counts_b.n_decisions
            / (cast(selected_layers.top_k as double) * token_total.n_tokens) as expected
    from pair_counts
    cross join token_total
    join expert_counts as counts_a
        on pair_counts.layer = counts_a.layer
        and pair_counts.expert_a = counts_a.expert
    join expert_counts as counts_b
        on pair_counts.layer = counts_b.layer
        and pair_counts.expert_b = counts_b.expert
    join selected_layers
        on pair_counts.layer = selected_layers.layer
)

select
    final.layer,
    final.expert_a,
    final.expert_b,
    final.n_adjacent,
    final.n_a,
    final.n_b,
    final.n_tokens,
    final.p_b_given_a,
    final.p_a_given_b,
    final.jaccard,
    final.expected,
    final.n_adjacent / final.expected as lift
from final
order by final.layer, final.expert_a, final.expert_b;
