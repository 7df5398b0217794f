-- title: Routing by example
-- answers: Which experts is each example routed to, prompt by prompt?
-- subject: experts
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param key varchar = 'template' naming example-label-or-none: the key of the examples' label that
--   puts them in order
-- param scope varchar = 'token' in (token, example): one token of each example, or all its tokens
-- param position integer = null: the token's position in scope token; the last when null
-- param layer integer = null: the MoE layer; all when null
-- column split: the example's split; corrupted comes last
-- column key: the label's key
-- column value: the label's value, the first of several; null without the label
-- column example_id: the example
-- column layer: the MoE layer
-- column expert: an expert that a token in scope chose
-- column n_experts: E, experts of the layer; those without a row were not chosen
-- column n_decisions: tokens in scope that chose the expert
-- column n_tokens: tokens in scope
-- column share: n_decisions / n_tokens; 1 in scope token
-- column weight: the expert's weight, mean over n_tokens, 0 where it was not chosen
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
        tokens.example_id,
        examples.split
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
        moe_layers.n_experts
    from moe_layers
    where
        moe_layers.run_id = cast($run as varchar)
        and (cast($layer as integer) is null or moe_layers.layer = cast($layer as integer))
),

selected_examples as (
    select
        selected_tokens.example_id,
        selected_tokens.split,
        count(*) as n_tokens
    from selected_tokens
    group by selected_tokens.example_id, selected_tokens.split
),

label_values as (
    select
        example_labels.example_id,
        min(example_labels.value) as value
    from example_labels
    where
        example_labels.run_id = cast($run as varchar)
        and example_labels.key = cast($key as varchar)
    group by example_labels.example_id
),

-- what all tokens of an example chose is counted already
expert_counts as (
    select
        example_routing.example_id,
        example_routing.layer,
        example_routing.expert,
        example_routing.n_decisions,
        example_routing.weight
    from example_routing
    where
        cast($scope as varchar) = 'example'
        and example_routing.run_id = cast($run as varchar)
        and (cast($layer as integer) is null or example_routing.layer = cast($layer as integer))
    union all
    select
        selected_tokens.example_id,
        routing.layer,
        routing.expert,
        count(*) as n_decisions,
        sum(cast(routing.weight as double)) as weight
    from routing
    join selected_tokens using (token_idx)
    where
        cast($scope as varchar) <> 'example'
        and routing.run_id = cast($run as varchar)
        and (cast($layer as integer) is null or routing.layer = cast($layer as integer))
    group by selected_tokens.example_id, routing.layer, routing.expert
),

final as (
    select
        selected_examples.split,
        cast($key as varchar) as key,
        label_values.value,
        selected_examples.example_id,
        expert_counts.layer,
        expert_counts.expert,
        cast(selected_layers.n_experts as bigint) as n_experts,
        expert_counts.n_decisions,
        selected_examples.n_tokens,
        cast(expert_counts.n_decisions as double) / selected_examples.n_tokens as share,
        expert_counts.weight / selected_examples.n_tokens as weight
    from expert_counts
    join selected_layers using (layer)
    join selected_examples using (example_id)
    left join label_values using (example_id)
)

select
    final.split,
    final.key,
    final.value,
    final.example_id,
    final.layer,
    final.expert,
    final.n_experts,
    final.n_decisions,
    final.n_tokens,
    final.share,
    final.weight
from final
order by
    case when final.split = 'corrupted' then 1 else 0 end,
    final.split,
    try_cast(final.value as double) nulls last,
    final.value nulls last,
    final.example_id,
    final.layer,
    final.expert;
