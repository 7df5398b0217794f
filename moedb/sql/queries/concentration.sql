-- title: Concentration of decisions
-- answers: What share of a layer's decisions do its most used experts take?
-- subject: experts
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- column layer: the MoE layer
-- column n_top: m, how many of the most used experts: 1, k, 2k, 4k, ... and all
-- column n_decisions: decisions that those experts take
-- column n_decisions_total: decisions of the layer
-- column share: n_decisions / n_decisions_total
-- column experts_50: smallest number of experts that take at least 50 % of the decisions
-- column experts_90: smallest number of experts that take at least 90 %
-- column experts_99: smallest number of experts that take at least 99 %
-- rows: layer, n_top
-- shares: share
-- estimates: experts_50, experts_90, experts_99
-- steps: experts_50, experts_90, experts_99
-- even: share
-- source: Divák & Velja
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

ranked_experts as (
    select
        selected_experts.layer,
        selected_layers.n_experts,
        selected_layers.top_k,
        row_number() over most_used_first as n_top,
        cast(sum(coalesce(expert_counts.n_decisions, 0)) over most_used_first as bigint)
            as n_decisions,
        cast(
            sum(coalesce(expert_counts.n_decisions, 0)) over (partition by selected_experts.layer)
            as bigint
        ) as n_decisions_total
    from selected_experts
    join selected_layers using (layer)
    left join expert_counts
        on selected_experts.layer = expert_counts.layer
        and selected_experts.expert = expert_counts.expert
    window most_used_first as (
        partition by selected_experts.layer
        order by coalesce(expert_counts.n_decisions, 0) desc, selected_experts.expert
        rows between unbounded preceding and current row
    )
),

-- in integers: 0.9 * N in floating point may miss a share of exactly 90 %
shares_reached as (
    select
        ranked_experts.layer,
        min(
            case
                when 100 * ranked_experts.n_decisions >= 50 * ranked_experts.n_decisions_total
                    then ranked_experts.n_top
            end
        ) as experts_50,
        min(
            case
                when 100 * ranked_experts.n_decisions >= 90 * ranked_experts.n_decisions_total
                    then ranked_experts.n_top
            end
        ) as experts_90,
        min(
            case
                when 100 * ranked_experts.n_decisions >= 99 * ranked_experts.n_decisions_total
                    then ranked_experts.n_top
            end
        ) as experts_99
    from ranked_experts
    where ranked_experts.n_decisions_total > 0
    group by ranked_experts.layer
),

multiples as (
    select
        ranked_experts.layer,
        ranked_experts.n_top,
        ranked_experts.n_experts,
        ranked_experts.n_decisions,
        ranked_experts.n_decisions_total,
        ranked_experts.n_top % ranked_experts.top_k as remainder,
        cast(floor(ranked_experts.n_top / ranked_experts.top_k) as bigint) as multiple
    from ranked_experts
),

final as (
    select
        multiples.layer,
        multiples.n_top,
        multiples.n_decisions,
        multiples.n_decisions_total,
        cast(multiples.n_decisions as double)
            / nullif(multiples.n_decisions_total, 0) as share,
        shares_reached.experts_50,
        shares_reached.experts_90,
        shares_reached.experts_99
    from multiples
    left join shares_reached using (layer)
    where
        multiples.n_top = 1
        or multiples.n_top = multiples.n_experts
        -- k times a power of two
        or (multiples.remainder = 0 and (multiples.multiple & (multiples.multiple - 1)) = 0)
)

select
    final.layer,
    final.n_top,
    final.n_decisions,
    final.n_decisions_total,
    final.share,
    final.experts_50,
    final.experts_90,
    final.experts_99
from final
order by final.layer, final.n_top;
