-- title: Routing by class
-- answers: Which experts do the tokens of each value of a label choose?
-- subject: labels
-- param key varchar: the label's key, of a run, an example or a token
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param layer integer = null: the MoE layer; all when null
-- column layer: the MoE layer
-- column value: the label's value
-- column expert: the expert
-- column n_decisions: N(e,c), tokens with this value that chose the expert
-- column n_tokens: N_c, tokens with this value
-- column rate: N(e,c) / N_c; sums to k over the experts
-- column share: N(e,c) over the decisions of the value's tokens; sums to 1 over the experts
-- column weight_share: the same with each decision counted by its weight
-- column frequency: N(e) / T over all tokens in the selection, labelled or not
-- column lift: rate / frequency; null for an expert never chosen
-- rows: layer, value, expert
-- size: n_tokens
-- shares: rate, share, weight_share, frequency
-- estimates: lift
-- shuffled: rate
-- source: Poetzscher, tables 2 and 3; OLMoE, domain specialization
with selected_experts as (
    select
        experts.layer,
        experts.expert
    from experts
    where
        experts.run_id = cast($run as varchar)
        and (cast($layer as integer) is null or experts.layer = cast($layer as integer))
),

selected_layers as (
    select
        moe_layers.layer,
        moe_layers.n_experts,
        moe_layers.top_k
    from moe_layers
    where
        moe_layers.run_id = cast($run as varchar)
        and (cast($layer as integer) is null or moe_layers.layer = cast($layer as integer))
),

selected_classes as (
    select
        class_sizes.value,
        class_sizes.n_tokens
    from class_sizes
    where
        class_sizes.run_id = cast($run as varchar)
        and class_sizes.selection = coalesce(cast($split as varchar), 'default')
        and class_sizes.key = cast($key as varchar)
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
        and (cast($layer as integer) is null or expert_usage.layer = cast($layer as integer))
),

class_counts as (
    select
        class_routing.layer,
        class_routing.value,
        class_routing.expert,
        class_routing.n_decisions,
        class_routing.weight
    from class_routing
    where
        class_routing.run_id = cast($run as varchar)
        and class_routing.selection = coalesce(cast($split as varchar), 'default')
        and class_routing.key = cast($key as varchar)
        and (cast($layer as integer) is null or class_routing.layer = cast($layer as integer))
),

class_totals as (
    select
        class_counts.layer,
        class_counts.value,
        cast(sum(class_counts.n_decisions) as bigint) as n_decisions,
        sum(class_counts.weight) as weight
    from class_counts
    group by class_counts.layer, class_counts.value
),

rates as (
    select
        selected_experts.layer,
        selected_classes.value,
        selected_experts.expert,
        coalesce(class_counts.n_decisions, 0) as n_decisions,
        selected_classes.n_tokens,
        cast(coalesce(class_counts.n_decisions, 0) as double) / selected_classes.n_tokens as rate,
        cast(coalesce(class_counts.n_decisions, 0) as double) / class_totals.n_decisions as share,
        coalesce(class_counts.weight, 0) / nullif(class_totals.weight, 0) as weight_share,
        cast(coalesce(expert_counts.n_decisions, 0) as double) / token_total.n_tokens as frequency
    from selected_experts
    join selected_layers using (layer)
    cross join selected_classes
    cross join token_total
    left join class_totals
        on selected_experts.layer = class_totals.layer
        and selected_classes.value = class_totals.value
    left join class_counts
        on selected_experts.layer = class_counts.layer
        and selected_experts.expert = class_counts.expert
        and selected_classes.value = class_counts.value
    left join expert_counts
        on selected_experts.layer = expert_counts.layer
        and selected_experts.expert = expert_counts.expert
),

final as (
    select
        rates.layer,
        rates.value,
        rates.expert,
        rates.n_decisions,
        rates.n_tokens,
        rates.rate,
        rates.share,
        rates.weight_share,
        rates.frequency,
        rates.rate / nullif(rates.frequency, 0) as lift
    from rates
)

select
    final.layer,
    final.value,
    final.expert,
    final.n_decisions,
    final.n_tokens,
    final.rate,
    final.share,
    final.weight_share,
    final.frequency,
    final.lift
from final
order by final.layer, try_cast(final.value as double) nulls last, final.value, final.expert;
