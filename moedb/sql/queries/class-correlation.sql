-- title: Correlation of classes
-- answers: Do two classes choose the same experts, whatever their spread?
-- subject: trials
-- param key varchar = 'class': the label's key, of an example, a token or a run
-- param variant varchar = null: the trials' variant; all when null
-- param experts integer = null: the trials' number of experts; all when null
-- param gate varchar = null in (weighted, unweighted): the trials' gate, weighted or
--   unweighted; all when null
-- param balance varchar = null in (mean, count, sum): the trials' balance loss, mean, count or
--   sum; all when null
-- param aux_coefficient double = null: the factor of that loss; all when null
-- param layer integer = null: the MoE layer; all when null
-- column variant: the trials' variant
-- column experts: the trials' number of experts
-- column gate: whether expert outputs are multiplied by the router's probability (weighted) or not
-- column balance: how the load balancing loss adds up a step's images: mean, count or sum
-- column aux_coefficient: the factor of that loss; null where the run does not say
-- column layer: the MoE layer
-- column class_a: a value of the label; each pair is there in both orders, and with itself
-- column class_b: the other value
-- column n_trials: trials with a correlation: both classes there, neither's shares constant
-- column correlation: Pearson correlation over the experts between the two classes' expert shares,
--   experts never chosen included as 0; mean over the trials. A trial's matrix does not depend on
--   the order of its experts, so no expert of one trial need be matched to one of another. Of two
--   experts a trial's is 1 or -1 by necessity, as their shares add up to 1: take class-covariance
-- column sd: its sample deviation over the trials; null for one
-- column lowest: the smallest over the trials
-- column highest: the largest over the trials
-- source: Poetzscher, figures 2 to 4
with class_counts as (
    select
        trial_routing.run_id,
        trial_routing.variant,
        trial_routing.experts,
        trial_routing.gate,
        trial_routing.balance,
        trial_routing.aux_coefficient,
        trial_routing.layer,
        trial_routing.value,
        trial_routing.expert,
        trial_routing.n_decisions
    from trial_routing
    where
        trial_routing.key = cast($key as varchar)
        and (cast($variant as varchar) is null or trial_routing.variant = cast($variant as varchar))
        and (cast($experts as integer) is null or trial_routing.experts = cast($experts as integer))
        and (cast($gate as varchar) is null or trial_routing.gate = cast($gate as varchar))
        and (cast($balance as varchar) is null or trial_routing.balance = cast($balance as varchar))
        and (
            cast($aux_coefficient as double) is null
            or trial_routing.aux_coefficient = cast($aux_coefficient as double)
        )
        and (cast($layer as integer) is null or trial_routing.layer = cast($layer as integer))
),

pair_sums as (
    select
        counts_a.run_id,
        counts_a.variant,
        counts_a.experts,
        counts_a.gate,
        counts_a.balance,
        counts_a.aux_coefficient,
        counts_a.layer,
        counts_a.value as class_a,
        counts_b.value as class_b,
        count(*) as n_experts,
        sum(counts_a.n_decisions) as sum_a,
        sum(counts_b.n_decisions) as sum_b,
        sum(counts_a.n_decisions * counts_a.n_decisions) as sum_aa,
        sum(counts_b.n_decisions * counts_b.n_decisions) as sum_bb,
        sum(counts_a.n_decisions * counts_b.n_decisions) as sum_ab
    from class_counts as counts_a
    join class_counts as counts_b
        on counts_a.run_id = counts_b.run_id
        and counts_a.layer = counts_b.layer
        and counts_a.expert = counts_b.expert
    group by
        counts_a.run_id,
        counts_a.variant,
        counts_a.experts,
        counts_a.gate,
        counts_a.balance,
        counts_a.aux_coefficient,
        counts_a.layer,
        counts_a.value,
        counts_b.value
),

-- shares are counts over totals: E times the sum of products less the product of sums is a whole
-- number, so what is constant has a spread of exactly 0
spreads as (
    select
        pair_sums.variant,
        pair_sums.experts,
        pair_sums.gate,
        pair_sums.balance,
        pair_sums.aux_coefficient,
        pair_sums.layer,
        pair_sums.class_a,
        pair_sums.class_b,
        cast(
            pair_sums.n_experts * pair_sums.sum_ab - pair_sums.sum_a * pair_sums.sum_b as double
        ) as together,
        cast(
            pair_sums.n_experts * pair_sums.sum_aa - pair_sums.sum_a * pair_sums.sum_a as double
        ) as spread_a,
        cast(
            pair_sums.n_experts * pair_sums.sum_bb - pair_sums.sum_b * pair_sums.sum_b as double
        ) as spread_b
    from pair_sums
),

trial_pairs as (
    select
        spreads.variant,
        spreads.experts,
        spreads.gate,
        spreads.balance,
        spreads.aux_coefficient,
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
        trial_pairs.gate,
        trial_pairs.balance,
        trial_pairs.aux_coefficient,
        trial_pairs.layer,
        trial_pairs.class_a,
        trial_pairs.class_b,
        count(trial_pairs.correlation) as n_trials,
        avg(trial_pairs.correlation) as correlation,
        stddev_samp(trial_pairs.correlation) as sd,
        min(trial_pairs.correlation) as lowest,
        max(trial_pairs.correlation) as highest
    from trial_pairs
    group by
        trial_pairs.variant,
        trial_pairs.experts,
        trial_pairs.gate,
        trial_pairs.balance,
        trial_pairs.aux_coefficient,
        trial_pairs.layer,
        trial_pairs.class_a,
        trial_pairs.class_b
)

select
    final.variant,
    final.experts,
    final.gate,
    final.balance,
    final.aux_coefficient,
    final.layer,
    final.class_a,
    final.class_b,
    final.n_trials,
    final.correlation,
    final.sd,
    final.lowest,
    final.highest
from final
order by
    final.variant,
    final.experts,
    final.gate,
    final.balance,
    final.aux_coefficient,
    final.layer,
    try_cast(final.class_a as double) nulls last,
    final.class_a,
    try_cast(final.class_b as double) nulls last,
    final.class_b;
