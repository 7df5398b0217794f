-- title: Consistently active experts
-- answers: How many experts of a layer are active in most examples, and what do they take?
-- subject: experts
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param scope varchar = 'token' in (token, example): one token of each example, or all its tokens;
--   an expert is active in an example where a token in scope chose it
-- param position integer = null: the token's position in scope token; the last when null
-- column layer: the MoE layer
-- column n_examples: examples with a token in scope
-- column n_experts: E, experts of the layer
-- column experts_ever: experts that are active in an example or more
-- column experts_50: experts that are active in at least 50 % of the examples
-- column experts_90: experts that are active in at least 90 %
-- column n_most: examples that the most widely active expert is active in
-- column most: n_most / n_examples
-- column uniform: share of the examples that an expert would be active in if every token chose
--   among the E experts alike: 1 - (1 - k/E)^tokens, mean over the examples
-- column n_decisions: decisions of the tokens in scope
-- column n_decisions_50: those that the experts_50 take
-- column n_decisions_90: those that the experts_90 take
-- column share_50: n_decisions_50 / n_decisions
-- column share_90: n_decisions_90 / n_decisions
-- rows: layer
-- size: n_examples
-- shares: most, share_50, share_90
-- estimates: experts_50, experts_90
-- steps: experts_50, experts_90, share_50, share_90
-- source: Divák & Velja
with examples_read as (
    select selections.example_id
    from selections
    where
        selections.run_id = cast($run as varchar)
        and selections.selection = coalesce(cast($split as varchar), 'default')
),

selected_tokens as (
    select
        tokens.token_idx,
        tokens.example_id
    from tokens
    join examples using (run_id, example_id)
    where
        tokens.run_id = cast($run as varchar)
        and tokens.example_id in (select examples_read.example_id from examples_read)
        and case
            when cast($scope as varchar) = 'example' then true
            else tokens.position = coalesce(cast($position as integer), examples.n_tokens - 1)
        end
),

selected_layers as (
    select
        moe_layers.layer,
        moe_layers.n_experts,
        moe_layers.top_k
    from moe_layers
    where moe_layers.run_id = cast($run as varchar)
),

selected_examples as (
    select
        selected_tokens.example_id,
        count(*) as n_tokens
    from selected_tokens
    group by selected_tokens.example_id
),

example_total as (
    select count(*) as n_examples
    from selected_examples
),

-- what all tokens of an example chose is counted already
decisions as (
    select
        example_routing.example_id,
        example_routing.layer,
        example_routing.expert,
        example_routing.n_decisions
    from example_routing
    where
        cast($scope as varchar) = 'example'
        and example_routing.run_id = cast($run as varchar)
        and example_routing.example_id in (select examples_read.example_id from examples_read)
    union all
    select
        selected_tokens.example_id,
        routing.layer,
        routing.expert,
        1 as n_decisions
    from routing
    join selected_tokens using (token_idx)
    where
        cast($scope as varchar) <> 'example'
        and routing.run_id = cast($run as varchar)
),

expert_counts as (
    select
        decisions.layer,
        decisions.expert,
        cast(sum(decisions.n_decisions) as bigint) as n_decisions,
        count(distinct decisions.example_id) as n_active
    from decisions
    group by decisions.layer, decisions.expert
),

-- in integers: 0.9 * n in floating point may miss exactly 90 %
graded_experts as (
    select
        expert_counts.layer,
        expert_counts.n_decisions,
        expert_counts.n_active,
        100 * expert_counts.n_active >= 50 * example_total.n_examples as in_50,
        100 * expert_counts.n_active >= 90 * example_total.n_examples as in_90
    from expert_counts
    cross join example_total
),

layer_counts as (
    select
        graded_experts.layer,
        count(*) as experts_ever,
        cast(sum(case when graded_experts.in_50 then 1 else 0 end) as bigint) as experts_50,
        cast(sum(case when graded_experts.in_90 then 1 else 0 end) as bigint) as experts_90,
        max(graded_experts.n_active) as n_most,
        cast(sum(graded_experts.n_decisions) as bigint) as n_decisions,
        cast(
            sum(case when graded_experts.in_50 then graded_experts.n_decisions else 0 end) as bigint
        ) as n_decisions_50,
        cast(
            sum(case when graded_experts.in_90 then graded_experts.n_decisions else 0 end) as bigint
        ) as n_decisions_90
    from graded_experts
    group by graded_experts.layer
),

chances as (
    select
        selected_layers.layer,
        avg(
            1 - power(
                1 - cast(selected_layers.top_k as double) / selected_layers.n_experts,
                selected_examples.n_tokens
            )
        ) as uniform
    from selected_layers
    cross join selected_examples
    group by selected_layers.layer
),

final as (
    select
        selected_layers.layer,
        example_total.n_examples,
        cast(selected_layers.n_experts as bigint) as n_experts,
        coalesce(layer_counts.experts_ever, 0) as experts_ever,
        coalesce(layer_counts.experts_50, 0) as experts_50,
        coalesce(layer_counts.experts_90, 0) as experts_90,
        coalesce(layer_counts.n_most, 0) as n_most,
        cast(layer_counts.n_most as double) / example_total.n_examples as most,
        chances.uniform,
        coalesce(layer_counts.n_decisions, 0) as n_decisions,
        coalesce(layer_counts.n_decisions_50, 0) as n_decisions_50,
        coalesce(layer_counts.n_decisions_90, 0) as n_decisions_90,
        cast(layer_counts.n_decisions_50 as double) / layer_counts.n_decisions as share_50,
        cast(layer_counts.n_decisions_90 as double) / layer_counts.n_decisions as share_90
    from selected_layers
    cross join example_total
    left join layer_counts using (layer)
    left join chances using (layer)
)

select
    final.layer,
    final.n_examples,
    final.n_experts,
    final.experts_ever,
    final.experts_50,
    final.experts_90,
    final.n_most,
    final.most,
    final.uniform,
    final.n_decisions,
    final.n_decisions_50,
    final.n_decisions_90,
    final.share_50,
    final.share_90
from final
order by final.layer;
