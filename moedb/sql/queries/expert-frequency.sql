-- title: Expert frequency
-- answers: How often is each expert of each layer chosen?
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- column layer: the MoE layer
-- column expert: the expert
-- column n_decisions: N, tokens that chose the expert
-- column n_tokens: T, tokens in the selection
-- column frequency: N / T
-- column share: N / (k T), the expert's share of the layer's decisions
-- column uniform: k / E, the frequency of every expert if all were chosen alike
-- source: Divák & Velja; OLMoE
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

selected_layers as (
    select
        moe_layers.run_id,
        moe_layers.layer,
        moe_layers.n_experts,
        moe_layers.top_k
    from moe_layers
    join chosen_run using (run_id)
),

token_total as (
    select count(*) as n_tokens
    from selected_tokens
),

expert_counts as (
    select
        routing.layer,
        routing.expert,
        count(*) as n_decisions
    from routing
    join selected_tokens using (run_id, token_idx)
    group by routing.layer, routing.expert
),

final as (
    select
        experts.layer,
        experts.expert,
        coalesce(expert_counts.n_decisions, 0) as n_decisions,
        token_total.n_tokens,
        cast(coalesce(expert_counts.n_decisions, 0) as double)
            / nullif(token_total.n_tokens, 0) as frequency,
        cast(coalesce(expert_counts.n_decisions, 0) as double)
            / nullif(selected_layers.top_k * token_total.n_tokens, 0) as share,
        cast(selected_layers.top_k as double) / selected_layers.n_experts as uniform
    from experts
    join selected_layers using (run_id, layer)
    cross join token_total
    left join expert_counts
        on experts.layer = expert_counts.layer
        and experts.expert = expert_counts.expert
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
