-- title: Routing by class
-- answers: Which experts do the tokens of each value of a label choose?
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
-- source: Poetzscher, tables 2 and 3; OLMoE, domain specialization
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
    where cast($layer as integer) is null or moe_layers.layer = cast($layer as integer)
),

-- an example and a token may carry the same label: count the token once
labelled_tokens as (
    select distinct
        selected_tokens.run_id,
        selected_tokens.token_idx,
        labels.value
    from labels
    join selected_tokens using (run_id, token_idx)
    where labels.key = cast($key as varchar)
),

class_sizes as (
    select
        labelled_tokens.value,
        count(*) as n_tokens
    from labelled_tokens
    group by labelled_tokens.value
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
    where cast($layer as integer) is null or routing.layer = cast($layer as integer)
    group by routing.layer, routing.expert
),

class_counts as (
    select
        routing.layer,
        labelled_tokens.value,
        routing.expert,
        count(*) as n_decisions,
        sum(cast(routing.weight as double)) as weight
    from routing
    join labelled_tokens using (run_id, token_idx)
    where cast($layer as integer) is null or routing.layer = cast($layer as integer)
    group by routing.layer, labelled_tokens.value, routing.expert
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
        experts.layer,
        class_sizes.value,
        experts.expert,
        coalesce(class_counts.n_decisions, 0) as n_decisions,
        class_sizes.n_tokens,
        cast(coalesce(class_counts.n_decisions, 0) as double) / class_sizes.n_tokens as rate,
        cast(coalesce(class_counts.n_decisions, 0) as double) / class_totals.n_decisions as share,
        coalesce(class_counts.weight, 0) / nullif(class_totals.weight, 0) as weight_share,
        cast(coalesce(expert_counts.n_decisions, 0) as double) / token_total.n_tokens as frequency
    from experts
    join selected_layers using (run_id, layer)
    cross join class_sizes
    cross join token_total
    left join class_totals
        on experts.layer = class_totals.layer
        and class_sizes.value = class_totals.value
    left join class_counts
        on experts.layer = class_counts.layer
        and experts.expert = class_counts.expert
        and class_sizes.value = class_counts.value
    left join expert_counts
        on experts.layer = expert_counts.layer
        and experts.expert = expert_counts.expert
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
