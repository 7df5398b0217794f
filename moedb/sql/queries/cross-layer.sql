-- title: Cross-layer routing
-- answers: Which experts of the next MoE layer does an expert go with?
-- subject: pairs
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param layer integer = null naming layer-before-another: the first of the two MoE layers; all but
--   the last when null
-- param pairs varchar = 'all' in (all, rank-aligned): all k x k pairs of a token, or equal ranks
-- column layer: the first of the two MoE layers
-- column next_layer: the MoE layer after it
-- column expert: an expert of layer
-- column next_expert: an expert of next_layer
-- column n_both: tokens that chose both, at equal ranks if rank-aligned; without any, no row
-- column n_expert: N(e), tokens that chose expert
-- column n_tokens: T, tokens in the selection
-- column p_next_given: n_both / N(e); over the next layer's experts it sums to their top k, or to 1
-- column expected: n_both if the two layers chose independently, each rank alike
-- column lift: n_both / expected
-- column information: mutual information of the two layers' experts, in bits, over their pairs
-- rows: layer, expert, next_expert
-- shares: p_next_given
-- estimates: lift
-- absent: p_next_given, lift
-- source: OLMoE; moe-router-study (rank-aligned)
with token_total as (
    select coalesce(max(selection_sizes.n_tokens), 0) as n_tokens
    from selection_sizes
    where
        selection_sizes.run_id = cast($run as varchar)
        and selection_sizes.selection = coalesce(cast($split as varchar), 'default')
),

following_layers as (
    select
        moe_layers.layer,
        lead(moe_layers.layer) over (order by moe_layers.layer) as next_layer
    from moe_layers
    where moe_layers.run_id = cast($run as varchar)
),

successive_layers as (
    select
        following_layers.layer,
        following_layers.next_layer
    from following_layers
    where
        following_layers.next_layer is not null
        and (
            cast($layer as integer) is null
            or following_layers.layer = cast($layer as integer)
        )
),

-- every rank is one group unless ranks are aligned
place_counts as (
    select
        rank_usage.layer,
        rank_usage.expert,
        case when cast($pairs as varchar) = 'rank-aligned' then rank_usage.rank else 0 end as place,
        cast(sum(rank_usage.n_decisions) as bigint) as n_decisions
    from rank_usage
    where
        rank_usage.run_id = cast($run as varchar)
        and rank_usage.selection = coalesce(cast($split as varchar), 'default')
    group by
        rank_usage.layer,
        rank_usage.expert,
        case when cast($pairs as varchar) = 'rank-aligned' then rank_usage.rank else 0 end
),

expert_counts as (
    select
        place_counts.layer,
        place_counts.expert,
        cast(sum(place_counts.n_decisions) as bigint) as n_decisions
    from place_counts
    group by place_counts.layer, place_counts.expert
),

decided_pairs as (
    select
        layer_pairs.layer,
        layer_pairs.next_layer,
        layer_pairs.expert,
        layer_pairs.next_expert,
        case
            when cast($pairs as varchar) = 'rank-aligned' then layer_pairs.n_aligned
            else layer_pairs.n_both
        end as n_both
    from layer_pairs
    where
        layer_pairs.run_id = cast($run as varchar)
        and layer_pairs.selection = coalesce(cast($split as varchar), 'default')
        and (cast($layer as integer) is null or layer_pairs.layer = cast($layer as integer))
),

pair_counts as (
    select
        decided_pairs.layer,
        decided_pairs.next_layer,
        decided_pairs.expert,
        decided_pairs.next_expert,
        decided_pairs.n_both
    from decided_pairs
    where decided_pairs.n_both > 0
),

expected_counts as (
    select
        successive_layers.layer,
        place_counts.expert,
        next_counts.expert as next_expert,
        sum(
            cast(place_counts.n_decisions as double)
            * next_counts.n_decisions
            / token_total.n_tokens
        ) as expected
    from successive_layers
    cross join token_total
    join place_counts
        on successive_layers.layer = place_counts.layer
    join place_counts as next_counts
        on successive_layers.next_layer = next_counts.layer
        and place_counts.place = next_counts.place
    group by successive_layers.layer, place_counts.expert, next_counts.expert
),

marginals as (
    select
        pair_counts.layer,
        pair_counts.next_layer,
        pair_counts.expert,
        pair_counts.next_expert,
        pair_counts.n_both,
        cast(sum(pair_counts.n_both) over of_layer as double) as n_pairs,
        cast(
            sum(pair_counts.n_both) over (partition by pair_counts.layer, pair_counts.expert)
            as double
        ) as n_of_expert,
        cast(
            sum(pair_counts.n_both) over (partition by pair_counts.layer, pair_counts.next_expert)
            as double
        ) as n_of_next
    from pair_counts
    window of_layer as (partition by pair_counts.layer)
),

information as (
    select
        marginals.layer,
        greatest(
            sum(
                marginals.n_both / marginals.n_pairs
                * log2(
                    marginals.n_both * marginals.n_pairs
                    / (marginals.n_of_expert * marginals.n_of_next)
                )
            ),
            0
        ) as information
    from marginals
    group by marginals.layer
),

final as (
    select
        pair_counts.layer,
        pair_counts.next_layer,
        pair_counts.expert,
        pair_counts.next_expert,
        pair_counts.n_both,
        expert_counts.n_decisions as n_expert,
        token_total.n_tokens,
        expected_counts.expected,
        information.information
    from pair_counts
    cross join token_total
    join expert_counts
        on pair_counts.layer = expert_counts.layer
        and pair_counts.expert = expert_counts.expert
    join expected_counts
        on pair_counts.layer = expected_counts.layer
        and pair_counts.expert = expected_counts.expert
        and pair_counts.next_expert = expected_counts.next_expert
    join information
        on pair_counts.layer = information.layer
)

select
    final.layer,
    final.next_layer,
    final.expert,
    final.next_expert,
    final.n_both,
    final.n_expert,
    final.n_tokens,
    cast(final.n_both as double) / final.n_expert as p_next_given,
    final.expected,
    final.n_both / final.expected as lift,
    final.information
from final
order by final.layer, final.expert, final.next_expert;
