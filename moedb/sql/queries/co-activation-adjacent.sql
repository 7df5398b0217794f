-- title: Co-activation of neighbours in rank
-- answers: Which experts of a layer are chosen next to each other in rank for the same token?
-- subject: pairs
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
-- column independent: 2 N_a N_b / (k T), if the two were independent of each other: of the pairs
--   of a token 2 in k are adjacent
-- column expected: 2 / k of what co-activation expects of the pair: k different experts drawn at
--   random with the same frequencies, and ranked at random
-- column lift: n_adjacent / expected; 1 is chance
-- rows: layer, expert_a, expert_b
-- shares: p_b_given_a, p_a_given_b, jaccard
-- estimates: lift
-- absent: p_b_given_a, p_a_given_b, jaccard, lift
-- source: OLMoE, as its code counts; chance as in co-activation
with selected_layers as (
    select
        moe_layers.layer,
        moe_layers.top_k
    from moe_layers
    where
        moe_layers.run_id = cast($run as varchar)
        and (cast($layer as integer) is null or moe_layers.layer = cast($layer as integer))
),

token_total as (
    select coalesce(max(selection_sizes.n_tokens), 0) as n_tokens
    from selection_sizes
    where
        selection_sizes.run_id = cast($run as varchar)
        and selection_sizes.selection = coalesce(cast($split as varchar), 'default')
),

expert_counts as (
    select
        expert_usage.layer,
        expert_usage.expert,
        expert_usage.n_decisions
    from expert_usage
    where
        expert_usage.run_id = cast($run as varchar)
        and expert_usage.selection = coalesce(cast($split as varchar), 'default')
        and (cast($layer as integer) is null or expert_usage.layer = cast($layer as integer))
),

chances as (
    select
        pair_chances.layer,
        pair_chances.expert_a,
        pair_chances.expert_b,
        pair_chances.expected
    from pair_chances
    where
        pair_chances.run_id = cast($run as varchar)
        and pair_chances.selection = coalesce(cast($split as varchar), 'default')
        and (cast($layer as integer) is null or pair_chances.layer = cast($layer as integer))
),

pair_counts as (
    select
        adjacent_pairs.layer,
        adjacent_pairs.expert_a,
        adjacent_pairs.expert_b,
        adjacent_pairs.n_adjacent
    from adjacent_pairs
    where
        adjacent_pairs.run_id = cast($run as varchar)
        and adjacent_pairs.selection = coalesce(cast($split as varchar), 'default')
        and (cast($layer as integer) is null or adjacent_pairs.layer = cast($layer as integer))
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
            / (cast(selected_layers.top_k as double) * token_total.n_tokens) as independent,
        cast(2 as double) / selected_layers.top_k * chances.expected as expected
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
    join chances
        on pair_counts.layer = chances.layer
        and pair_counts.expert_a = chances.expert_a
        and pair_counts.expert_b = chances.expert_b
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
    final.independent,
    final.expected,
    final.n_adjacent / final.expected as lift
from final
order by final.layer, final.expert_a, final.expert_b;
