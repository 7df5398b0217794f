-- title: Correlation of classes
-- answers: Do two classes choose the same experts, whatever their spread?
-- param key varchar = 'class': the label's key, of an example, a token or a run
-- param variant varchar = null: the trials' variant; all when null
-- param experts integer = null: the trials' number of experts; all when null
-- param layer integer = null: the MoE layer; all when null
-- column variant: the trials' variant
-- column experts: the trials' number of experts
-- column layer: the MoE layer
-- column class_a: a value of the label; each pair is there in both orders, and with itself
-- column class_b: the other value
-- column n_trials: trials with a correlation: both classes there, neither's shares constant
-- column correlation: Pearson correlation over the experts between the two classes' expert shares,
--   experts never chosen included as 0; mean over the trials. A trial's matrix does not depend on
--   the order of its experts, so no expert of one trial need be matched to one of another
-- column lowest: the smallest over the trials
-- column highest: the largest over the trials
-- source: Poetzscher, figures 2 to 4
with selected_trials as (
    select
        trials.run_id,
        trials.variant,
        trials.experts,
        trials.trial
    from trials
    where
        (cast($variant as varchar) is null or trials.variant = cast($variant as varchar))
        and (cast($experts as integer) is null or trials.experts = cast($experts as integer))
),

selected_layers as (
    select
        moe_layers.run_id,
        moe_layers.layer,
        moe_layers.n_experts
    from moe_layers
    join selected_trials using (run_id)
    where cast($layer as integer) is null or moe_layers.layer = cast($layer as integer)
),

-- an example and a token may carry the same label: count the token once
labelled_tokens as (
    select distinct
        labels.run_id,
        labels.token_idx,
        labels.value
    from labels
    join selected_trials using (run_id)
    where labels.key = cast($key as varchar)
),

class_counts as (
    select
        routing.run_id,
        routing.layer,
        labelled_tokens.value,
        routing.expert,
        count(*) as n_decisions
    from routing
    join labelled_tokens using (run_id, token_idx)
    join selected_layers using (run_id, layer)
    group by routing.run_id, routing.layer, labelled_tokens.value, routing.expert
),

class_totals as (
    select
        class_counts.run_id,
        class_counts.layer,
        class_counts.value,
        sum(class_counts.n_decisions) as n_decisions,
        sum(class_counts.n_decisions * class_counts.n_decisions) as n_squared
    from class_counts
    group by class_counts.run_id, class_counts.layer, class_counts.value
),

class_products as (
    select
        counts_a.run_id,
        counts_a.layer,
        counts_a.value as class_a,
        counts_b.value as class_b,
        sum(counts_a.n_decisions * counts_b.n_decisions) as n_product
    from class_counts as counts_a
    join class_counts as counts_b
        on counts_a.run_id = counts_b.run_id
        and counts_a.layer = counts_b.layer
        and counts_a.expert = counts_b.expert
    group by counts_a.run_id, counts_a.layer, counts_a.value, counts_b.value
),

-- shares are counts over totals: E times the sum of products less the product of sums is a whole
-- number, so what is constant has a spread of exactly 0
spreads as (
    select
        selected_trials.variant,
        selected_trials.experts,
        totals_a.layer,
        totals_a.value as class_a,
        totals_b.value as class_b,
        cast(
            selected_layers.n_experts * coalesce(class_products.n_product, 0)
            - totals_a.n_decisions * totals_b.n_decisions as double
        ) as together,
        cast(
            selected_layers.n_experts * totals_a.n_squared
            - totals_a.n_decisions * totals_a.n_decisions as double
        ) as spread_a,
        cast(
            selected_layers.n_experts * totals_b.n_squared
            - totals_b.n_decisions * totals_b.n_decisions as double
        ) as spread_b
    from class_totals as totals_a
    join class_totals as totals_b
        on totals_a.run_id = totals_b.run_id
        and totals_a.layer = totals_b.layer
    join selected_layers
        on totals_a.run_id = selected_layers.run_id
        and totals_a.layer = selected_layers.layer
    join selected_trials
        on totals_a.run_id = selected_trials.run_id
    left join class_products
        on totals_a.run_id = class_products.run_id
        and totals_a.layer = class_products.layer
        and totals_a.value = class_products.class_a
        and totals_b.value = class_products.class_b
),

trial_pairs as (
    select
        spreads.variant,
        spreads.experts,
        spreads.layer,
        spreads.class_a,
        spreads.class_b,
        spreads.together / nullif(sqrt(spreads.spread_a * spreads.spread_b), 0) as correlation
    from spreads
),

final as (
    select
        trial_pairs.variant,
        trial_pairs.experts,
        trial_pairs.layer,
        trial_pairs.class_a,
        trial_pairs.class_b,
        count(trial_pairs.correlation) as n_trials,
        avg(trial_pairs.correlation) as correlation,
        min(trial_pairs.correlation) as lowest,
        max(trial_pairs.correlation) as highest
    from trial_pairs
    group by
        trial_pairs.variant,
        trial_pairs.experts,
        trial_pairs.layer,
        trial_pairs.class_a,
        trial_pairs.class_b
)

select
    final.variant,
    final.experts,
    final.layer,
    final.class_a,
    final.class_b,
    final.n_trials,
    final.correlation,
    final.lowest,
    final.highest
from final
order by
    final.variant,
    final.experts,
    final.layer,
    try_cast(final.class_a as double) nulls last,
    final.class_a,
    try_cast(final.class_b as double) nulls last,
    final.class_b;
