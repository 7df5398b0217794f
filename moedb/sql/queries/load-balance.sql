-- title: Load balance
-- answers: How evenly are a layer's decisions spread over its experts?
-- subject: experts
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- column layer: the MoE layer
-- column n_experts: E, experts of the layer
-- column n_decisions: decisions of the layer
-- column n_used: experts chosen at least once
-- column n_dead: experts never chosen
-- column normalized_entropy: entropy of the experts' shares over log2 E; 1 when even
-- column effective_experts: 2 to the entropy in bits
-- column gini: Gini coefficient of the experts' decisions; 0 when even
-- column cv: standard deviation of the experts' decisions over their mean
-- column max_over_mean: decisions of the most used expert over the mean
-- column switch_loss: E times the sum of share and mean router probability; 1 when even
-- rows: layer
-- estimates: normalized_entropy, effective_experts, gini, cv, max_over_mean,
--   switch_loss
-- even: normalized_entropy, gini, cv, max_over_mean
-- source: Fedus et al. 2022, equation 4, for the loss
with selected_experts as (
    select
        experts.layer,
        experts.expert
    from experts
    where experts.run_id = cast($run as varchar)
),

selected_layers as (
    select
        moe_layers.layer,
        moe_layers.n_experts,
        moe_layers.top_k
    from moe_layers
    where moe_layers.run_id = cast($run as varchar)
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
),

probabilities as (
    select
        expert_mass.layer,
        expert_mass.expert,
        expert_mass.probability
    from expert_mass
    where
        expert_mass.run_id = cast($run as varchar)
        and expert_mass.selection = coalesce(cast($split as varchar), 'default')
),

expert_load as (
    select
        selected_experts.layer,
        cast(selected_layers.n_experts as bigint) as n_experts,
        coalesce(expert_counts.n_decisions, 0) as n_decisions,
        cast(
            sum(coalesce(expert_counts.n_decisions, 0)) over (partition by selected_experts.layer)
            as bigint
        ) as n_decisions_total,
        row_number() over (
            partition by selected_experts.layer
            order by coalesce(expert_counts.n_decisions, 0), selected_experts.expert
        ) as place,
        probabilities.probability / nullif(token_total.n_tokens, 0) as mean_probability
    from selected_experts
    join selected_layers using (layer)
    cross join token_total
    left join expert_counts
        on selected_experts.layer = expert_counts.layer
        and selected_experts.expert = expert_counts.expert
    left join probabilities
        on selected_experts.layer = probabilities.layer
        and selected_experts.expert = probabilities.expert
),

expert_shares as (
    select
        expert_load.layer,
        expert_load.n_experts,
        expert_load.n_decisions,
        expert_load.n_decisions_total,
        expert_load.place,
        expert_load.mean_probability,
        cast(expert_load.n_decisions as double)
            / nullif(expert_load.n_decisions_total, 0) as share
    from expert_load
),

layer_sums as (
    select
        expert_shares.layer,
        expert_shares.n_experts,
        expert_shares.n_decisions_total,
        sum(case when expert_shares.n_decisions > 0 then 1 else 0 end) as n_used,
        sum(
            case
                when expert_shares.share > 0
                    then expert_shares.share * log2(1 / expert_shares.share)
                when expert_shares.share = 0
                    then 0
            end
        ) as entropy,
        sum(
            (2 * expert_shares.place - expert_shares.n_experts - 1) * expert_shares.share
        ) as spread,
        stddev_pop(cast(expert_shares.n_decisions as double)) as deviation,
        max(expert_shares.share) as largest_share,
        sum(expert_shares.share * expert_shares.mean_probability) as share_times_probability
    from expert_shares
    group by expert_shares.layer, expert_shares.n_experts, expert_shares.n_decisions_total
),

final as (
    select
        layer_sums.layer,
        layer_sums.n_experts,
        layer_sums.n_decisions_total as n_decisions,
        cast(layer_sums.n_used as bigint) as n_used,
        cast(layer_sums.n_experts - layer_sums.n_used as bigint) as n_dead,
        case
            when layer_sums.n_experts > 1
                then layer_sums.entropy / log2(cast(layer_sums.n_experts as double))
        end as normalized_entropy,
        power(cast(2 as double), layer_sums.entropy) as effective_experts,
        layer_sums.spread / layer_sums.n_experts as gini,
        layer_sums.deviation * layer_sums.n_experts
            / nullif(layer_sums.n_decisions_total, 0) as cv,
        layer_sums.largest_share * layer_sums.n_experts as max_over_mean,
        layer_sums.n_experts * layer_sums.share_times_probability as switch_loss
    from layer_sums
)

select
    final.layer,
    final.n_experts,
    final.n_decisions,
    final.n_used,
    final.n_dead,
    final.normalized_entropy,
    final.effective_experts,
    final.gini,
    final.cv,
    final.max_over_mean,
    final.switch_loss
from final
order by final.layer;
