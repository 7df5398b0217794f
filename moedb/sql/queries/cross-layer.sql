-- title: Cross-layer routing
-- answers: Which experts of the next MoE layer does an expert go with?
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
-- source: OLMoE; moe-router-study (rank-aligned)
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

token_total as (
    select count(*) as n_tokens
    from selected_tokens
),

following_layers as (
    select
        moe_layers.layer,
        lead(moe_layers.layer) over (order by moe_layers.layer) as next_layer
    from moe_layers
    join chosen_run using (run_id)
),

layer_pairs as (
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
decisions as (
    select
        routing.token_idx,
        routing.layer,
        routing.expert,
        case when cast($pairs as varchar) = 'rank-aligned' then routing.rank else 0 end as place
    from routing
    join selected_tokens using (run_id, token_idx)
),

place_counts as (
    select
        decisions.layer,
        decisions.expert,
        decisions.place,
        count(*) as n_decisions
    from decisions
    group by decisions.layer, decisions.expert, decisions.place
),

expert_counts as (
    select
        place_counts.layer,
        place_counts.expert,
        cast(sum(place_counts.n_decisions) as bigint) as n_decisions
    from place_counts
    group by place_counts.layer, place_counts.expert
),

pair_counts as (
    select
        layer_pairs.layer,
        layer_pairs.next_layer,
        decisions.expert,
        next_decisions.expert as next_expert,
        count(*) as n_both
    from layer_pairs
    join decisions
        on layer_pairs.layer = decisions.layer
    join decisions as next_decisions
        on layer_pairs.next_layer = next_decisions.layer
        and decisions.token_idx = next_decisions.token_idx
        and decisions.place = next_decisions.place
    group by layer_pairs.layer, layer_pairs.next_layer, decisions.expert, next_decisions.expert
),

expected_counts as (
    select
        layer_pairs.layer,
        place_counts.expert,
        next_counts.expert as next_expert,
        sum(
            cast(place_counts.n_decisions as double)
            * next_counts.n_decisions
            / token_total.n_tokens
        ) as expected
    from layer_pairs
    cross join token_total
    join place_counts
        on layer_pairs.layer = place_counts.layer
    join place_counts as next_counts
        on layer_pairs.next_layer = next_counts.layer
        and place_counts.place = next_counts.place
    group by layer_pairs.layer, place_counts.expert, next_counts.expert
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
