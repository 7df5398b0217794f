-- title: Overlap of experts
-- answers: Do two labels, or two runs, use the same experts of each layer?
-- subject: labels
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param key varchar = null: the key of the label that tells the two groups of tokens apart
-- param value_a varchar = null: the label's value in group A; all tokens when null
-- param value_b varchar = null: the label's value in group B; all tokens when null
-- param run_b varchar = null: the run of group B; that of group A when null
-- param m integer = null: compare the m most used experts; the layer's top k when null
-- column layer: the MoE layer
-- column n_tokens_a: tokens in group A
-- column n_tokens_b: tokens in group B
-- column m: how many of the most used experts are compared
-- column n_shared: experts among the m most used of both groups; an unused expert never counts
-- column jaccard: n_shared over the experts among the m most used of either
-- column expected_jaccard: what it is on average of two random sets of experts that are as large as
--   these two; null where two runs have not the same number of experts
-- column overlap_coefficient: n_shared over the size of the smaller of the two sets
-- column weighted_jaccard: sum over all experts of the smaller share, over that of the larger
-- column jensen_shannon: Jensen-Shannon divergence (bits) of the shares of decisions; 0 when equal
-- rows: layer
-- shares: jaccard, overlap_coefficient, weighted_jaccard
-- estimates: jensen_shannon
-- steps: jaccard, overlap_coefficient
-- kinks: weighted_jaccard
-- shuffled: jaccard, weighted_jaccard, jensen_shannon
-- source: Divák & Velja
with groups as (
    select
        'a' as side,
        cast($run as varchar) as run_id,
        cast($value_a as varchar) as label_value
    union all
    select
        'b' as side,
        coalesce(cast($run_b as varchar), cast($run as varchar)) as run_id,
        cast($value_b as varchar) as label_value
),

group_sizes as (
    select
        groups.side,
        selection_sizes.n_tokens
    from groups
    join selection_sizes using (run_id)
    where
        groups.label_value is null
        and selection_sizes.selection = coalesce(cast($split as varchar), 'default')
    union all
    select
        groups.side,
        class_sizes.n_tokens
    from groups
    join class_sizes
        on groups.run_id = class_sizes.run_id
        and groups.label_value = class_sizes.value
    where
        class_sizes.selection = coalesce(cast($split as varchar), 'default')
        and class_sizes.key = cast($key as varchar)
),

token_totals as (
    select
        coalesce(sum(case when group_sizes.side = 'a' then group_sizes.n_tokens else 0 end), 0)
            as n_tokens_a,
        coalesce(sum(case when group_sizes.side = 'b' then group_sizes.n_tokens else 0 end), 0)
            as n_tokens_b
    from group_sizes
),

selected_layers as (
    select
        layers_a.layer,
        cast(coalesce(cast($m as integer), layers_a.top_k) as bigint) as n_compared,
        case when layers_a.n_experts = layers_b.n_experts then layers_a.n_experts end as n_experts
    from groups as group_a
    join groups as group_b
        on group_a.side = 'a'
        and group_b.side = 'b'
    join moe_layers as layers_a
        on group_a.run_id = layers_a.run_id
    join moe_layers as layers_b
        on group_b.run_id = layers_b.run_id
        and layers_a.layer = layers_b.layer
),

expert_counts as (
    select
        groups.side,
        expert_usage.layer,
        expert_usage.expert,
        expert_usage.n_decisions
    from groups
    join expert_usage using (run_id)
    where
        groups.label_value is null
        and expert_usage.selection = coalesce(cast($split as varchar), 'default')
    union all
    select
        groups.side,
        class_routing.layer,
        class_routing.expert,
        class_routing.n_decisions
    from groups
    join class_routing
        on groups.run_id = class_routing.run_id
        and groups.label_value = class_routing.value
    where
        class_routing.selection = coalesce(cast($split as varchar), 'default')
        and class_routing.key = cast($key as varchar)
),

ranked_experts as (
    select
        expert_counts.side,
        expert_counts.layer,
        expert_counts.expert,
        cast(expert_counts.n_decisions as double)
            / sum(expert_counts.n_decisions) over (
                partition by expert_counts.side, expert_counts.layer
            ) as share,
        row_number() over (
            partition by expert_counts.side, expert_counts.layer
            order by expert_counts.n_decisions desc, expert_counts.expert
        ) as place
    from expert_counts
),

-- one row for each expert that either group used
used_experts as (
    select
        ranked_experts.layer,
        ranked_experts.expert,
        max(case when ranked_experts.side = 'a' then ranked_experts.share end) as used_a,
        max(case when ranked_experts.side = 'b' then ranked_experts.share end) as used_b,
        max(
            case
                when ranked_experts.side = 'a'
                    and ranked_experts.place <= selected_layers.n_compared
                    then 1
                else 0
            end
        ) as in_a,
        max(
            case
                when ranked_experts.side = 'b'
                    and ranked_experts.place <= selected_layers.n_compared
                    then 1
                else 0
            end
        ) as in_b
    from ranked_experts
    join selected_layers using (layer)
    group by ranked_experts.layer, ranked_experts.expert
),

expert_shares as (
    select
        used_experts.layer,
        used_experts.in_a,
        used_experts.in_b,
        coalesce(used_experts.used_a, 0) as share_a,
        coalesce(used_experts.used_b, 0) as share_b,
        (coalesce(used_experts.used_a, 0) + coalesce(used_experts.used_b, 0)) / 2 as share_mean
    from used_experts
),

layer_sums as (
    select
        expert_shares.layer,
        sum(expert_shares.in_a) as n_top_a,
        sum(expert_shares.in_b) as n_top_b,
        sum(expert_shares.in_a * expert_shares.in_b) as n_shared,
        sum(least(expert_shares.share_a, expert_shares.share_b)) as smaller_shares,
        sum(greatest(expert_shares.share_a, expert_shares.share_b)) as larger_shares,
        sum(
            case when expert_shares.share_a > 0
                then expert_shares.share_a * log2(expert_shares.share_a / expert_shares.share_mean)
                else 0
            end
        ) / 2 as divergence_a,
        sum(
            case when expert_shares.share_b > 0
                then expert_shares.share_b * log2(expert_shares.share_b / expert_shares.share_mean)
                else 0
            end
        ) / 2 as divergence_b,
        sum(expert_shares.share_a) * sum(expert_shares.share_b) as both_used
    from expert_shares
    group by expert_shares.layer
),

set_sizes as (
    select
        selected_layers.layer,
        selected_layers.n_experts,
        layer_sums.n_top_a,
        layer_sums.n_top_b,
        greatest(layer_sums.n_top_a + layer_sums.n_top_b - selected_layers.n_experts, 0)
            as fewest_shared
    from selected_layers
    join layer_sums using (layer)
    where selected_layers.n_experts is not null
),

-- every number of experts that two sets of these sizes can share: there are never more of them than
-- experts, so that these number them
possible_shares as (
    select
        set_sizes.layer,
        set_sizes.n_experts,
        set_sizes.n_top_a,
        set_sizes.n_top_b,
        set_sizes.fewest_shared,
        set_sizes.fewest_shared + experts.expert as n_shared
    from set_sizes
    join experts using (layer)
    where
        experts.run_id = cast($run as varchar)
        and set_sizes.fewest_shared + experts.expert
        <= least(set_sizes.n_top_a, set_sizes.n_top_b)
),

-- hypergeometric: the chance of one number over that of the number before it is a fraction of whole
-- numbers, and adding up their logarithms never overflows
share_chances as (
    select
        possible_shares.layer,
        possible_shares.n_top_a,
        possible_shares.n_top_b,
        possible_shares.n_shared,
        sum(
            case
                when possible_shares.n_shared = possible_shares.fewest_shared then 0
                else ln(
                    cast(possible_shares.n_top_a - possible_shares.n_shared + 1 as double)
                    * (possible_shares.n_top_b - possible_shares.n_shared + 1)
                    / possible_shares.n_shared
                    / (
                        possible_shares.n_experts - possible_shares.n_top_a
                        - possible_shares.n_top_b + possible_shares.n_shared
                    )
                )
            end
        ) over (
            partition by possible_shares.layer
            order by possible_shares.n_shared
            rows between unbounded preceding and current row
        ) as log_chance
    from possible_shares
),

largest_chances as (
    select
        share_chances.layer,
        max(share_chances.log_chance) as log_chance
    from share_chances
    group by share_chances.layer
),

chances as (
    select
        share_chances.layer,
        sum(
            exp(share_chances.log_chance - largest_chances.log_chance)
            * cast(share_chances.n_shared as double)
            / nullif(share_chances.n_top_a + share_chances.n_top_b - share_chances.n_shared, 0)
        )
        / sum(exp(share_chances.log_chance - largest_chances.log_chance)) as expected_jaccard
    from share_chances
    join largest_chances using (layer)
    group by share_chances.layer
),

final as (
    select
        selected_layers.layer,
        cast(token_totals.n_tokens_a as bigint) as n_tokens_a,
        cast(token_totals.n_tokens_b as bigint) as n_tokens_b,
        selected_layers.n_compared as m,
        cast(coalesce(layer_sums.n_shared, 0) as bigint) as n_shared,
        cast(layer_sums.n_shared as double)
            / nullif(layer_sums.n_top_a + layer_sums.n_top_b - layer_sums.n_shared, 0) as jaccard,
        chances.expected_jaccard,
        cast(layer_sums.n_shared as double)
            / nullif(least(layer_sums.n_top_a, layer_sums.n_top_b), 0) as overlap_coefficient,
        case when layer_sums.both_used > 0
            then layer_sums.smaller_shares / layer_sums.larger_shares
        end as weighted_jaccard,
        case when layer_sums.both_used > 0
            then greatest(layer_sums.divergence_a + layer_sums.divergence_b, 0)
        end as jensen_shannon
    from selected_layers
    cross join token_totals
    left join layer_sums using (layer)
    left join chances using (layer)
)

select
    final.layer,
    final.n_tokens_a,
    final.n_tokens_b,
    final.m,
    final.n_shared,
    final.jaccard,
    final.expected_jaccard,
    final.overlap_coefficient,
    final.weighted_jaccard,
    final.jensen_shannon
from final
order by final.layer;
