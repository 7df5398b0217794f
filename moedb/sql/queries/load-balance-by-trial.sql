-- title: Load balance by trial
-- answers: How evenly does each trial spread its decisions over the experts?
-- subject: trials
-- param variant varchar = null: the trials' variant; all when null
-- param experts integer = null: the trials' number of experts; all when null
-- param gate varchar = null in (weighted, unweighted): the trials' gate, weighted or
--   unweighted; all when null
-- param balance varchar = null in (mean, count, sum): the trials' balance loss, mean, count or
--   sum; all when null
-- param aux_coefficient double = null: the factor of that loss; all when null
-- column variant: the trial's variant
-- column experts: the trial's number of experts
-- column gate: whether expert outputs are multiplied by the router's probability (weighted) or not
-- column balance: how the load balancing loss adds up a step's images: mean, count or sum
-- column aux_coefficient: the factor of that loss; null where the run does not say
-- column trial: the trial
-- column layer: the MoE layer
-- column n_decisions: decisions of the layer
-- column n_dead: experts never chosen
-- column normalized_entropy: entropy of the experts' shares over log2 E; 1 when even
-- column largest_share: share of the decisions that the most used expert takes
-- column smallest_share: share that the least used expert takes; 0 when one is never chosen
-- column switch_loss: E times the sum of share and mean router probability; 1 when even
-- source: Fedus et al. 2022, equation 4, for the loss
with selected_trials as (
    select
        trials.run_id,
        trials.variant,
        trials.experts,
        trials.gate,
        trials.balance,
        trials.aux_coefficient,
        trials.trial
    from trials
    where
        (cast($variant as varchar) is null or trials.variant = cast($variant as varchar))
        and (cast($experts as integer) is null or trials.experts = cast($experts as integer))
        and (cast($gate as varchar) is null or trials.gate = cast($gate as varchar))
        and (cast($balance as varchar) is null or trials.balance = cast($balance as varchar))
        and (
            cast($aux_coefficient as double) is null
            or trials.aux_coefficient = cast($aux_coefficient as double)
        )
),

selected_layers as (
    select
        moe_layers.run_id,
        moe_layers.layer,
        cast(moe_layers.n_experts as bigint) as n_experts
    from moe_layers
    join selected_trials using (run_id)
),

token_totals as (
    select
        tokens.run_id,
        count(*) as n_tokens
    from tokens
    join selected_trials using (run_id)
    group by tokens.run_id
),

expert_counts as (
    select
        expert_usage.run_id,
        expert_usage.layer,
        expert_usage.expert,
        expert_usage.n_decisions
    from expert_usage
    join selected_trials using (run_id)
    where expert_usage.selection = 'all'
),

-- fractions are added up in one order: the last digit must not depend on threads
probabilities as (
    select
        router_mass.run_id,
        router_mass.layer,
        router_mass.expert,
        sum(
            cast(router_mass.probability as double)
            order by router_mass.example_id
        ) as probability
    from router_mass
    join selected_trials using (run_id)
    group by router_mass.run_id, router_mass.layer, router_mass.expert
),

-- experts never chosen have no row here: their share of 0 adds nothing to the sums below
expert_shares as (
    select
        expert_counts.run_id,
        expert_counts.layer,
        expert_counts.expert,
        expert_counts.n_decisions,
        cast(expert_counts.n_decisions as double) / cast(
            sum(expert_counts.n_decisions) over (
                partition by expert_counts.run_id, expert_counts.layer
            ) as bigint
        ) as share,
        probabilities.probability / token_totals.n_tokens as mean_probability
    from expert_counts
    join token_totals using (run_id)
    left join probabilities using (run_id, layer, expert)
),

layer_sums as (
    select
        expert_shares.run_id,
        expert_shares.layer,
        cast(sum(expert_shares.n_decisions) as bigint) as n_decisions,
        count(*) as n_used,
        sum(
            expert_shares.share * log2(1 / expert_shares.share)
            order by expert_shares.expert
        ) as entropy,
        max(expert_shares.share) as largest_share,
        min(expert_shares.share) as smallest_share,
        sum(
            expert_shares.share * expert_shares.mean_probability
            order by expert_shares.expert
        ) as share_times_probability
    from expert_shares
    group by expert_shares.run_id, expert_shares.layer
),

final as (
    select
        selected_trials.variant,
        selected_trials.experts,
        selected_trials.gate,
        selected_trials.balance,
        selected_trials.aux_coefficient,
        selected_trials.trial,
        selected_layers.layer,
        coalesce(layer_sums.n_decisions, 0) as n_decisions,
        selected_layers.n_experts - coalesce(layer_sums.n_used, 0) as n_dead,
        case
            when selected_layers.n_experts > 1
                then layer_sums.entropy / log2(cast(selected_layers.n_experts as double))
        end as normalized_entropy,
        layer_sums.largest_share,
        case
            when layer_sums.n_used < selected_layers.n_experts
                then 0
            else layer_sums.smallest_share
        end as smallest_share,
        selected_layers.n_experts * layer_sums.share_times_probability as switch_loss
    from selected_layers
    join selected_trials using (run_id)
    left join layer_sums using (run_id, layer)
)

select
    final.variant,
    final.experts,
    final.gate,
    final.balance,
    final.aux_coefficient,
    final.trial,
    final.layer,
    final.n_decisions,
    final.n_dead,
    final.normalized_entropy,
    final.largest_share,
    final.smallest_share,
    final.switch_loss
from final
order by
    final.variant,
    final.experts,
    final.gate,
    final.balance,
    final.aux_coefficient,
    final.trial,
    final.layer;
