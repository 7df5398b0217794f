-- title: Expert frequency
-- answers: How often is each expert of each layer chosen?
-- subject: experts
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- column layer: the MoE layer
-- column expert: the expert
-- column n_decisions: N, tokens that chose the expert
-- column n_tokens: T, tokens in the selection
-- column frequency: N / T
-- column share: N / (k T), the expert's share of the layer's decisions
-- column uniform: k / E, the frequency of every expert if all were chosen alike
-- rows: layer, expert
-- shares: frequency, share
-- source: Divák & Velja; OLMoE
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

final as (
    select
        selected_experts.layer,
        selected_experts.expert,
        coalesce(expert_counts.n_decisions, 0) as n_decisions,
        token_total.n_tokens,
        cast(coalesce(expert_counts.n_decisions, 0) as double)
            / nullif(token_total.n_tokens, 0) as frequency,
        cast(coalesce(expert_counts.n_decisions, 0) as double)
            / nullif(selected_layers.top_k * token_total.n_tokens, 0) as share,
        cast(selected_layers.top_k as double) / selected_layers.n_experts as uniform
    from selected_experts
    join selected_layers using (layer)
    cross join token_total
    left join expert_counts
        on selected_experts.layer = expert_counts.layer
        and selected_experts.expert = expert_counts.expert
)

select
    final.layer,
    final.expert,
    final.n_decisions,
    final.n_tokens,
    final.frequency,
    final.share,
    final.uniform
from final
order by final.layer, final.expert;
