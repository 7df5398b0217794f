-- title: Consistency of classes
-- answers: In how many trials do two classes go mainly to the same expert?
-- param key varchar = 'class': the label's key, of an example, a token or a run
-- param variant varchar = null: the trials' variant; all when null
-- param experts integer = null: the trials' number of experts; all when null
-- param layer integer = null: the MoE layer; all when null
-- column variant: the trials' variant
-- column experts: the trials' number of experts
-- column layer: the MoE layer
-- column class_a: a value of the label; each pair is there in both orders, and with itself
-- column class_b: the other value
-- column n_trials: trials in which both classes are there
-- column n_together: trials in which the expert that class_a chooses most often is the one that
--   class_b does; of experts chosen equally often, the smaller index
-- column share: n_together / n_trials; 1 for a class with itself
-- source: moedb, after Poetzscher, figures 2 to 4
with selected_trials as (
    select
        trials.run_id,
        trials.variant,
        trials.experts,
        trials.trial
    from trials
    where
        (cast($variant as varchar) is null or trials.variant = cast($variant as varchar))
        and (cast($experts as integer) is null or trials.experts = cast($experts as integer))
),

selected_layers as (
    select
        moe_layers.run_id,
        moe_layers.layer,
        moe_layers.n_experts
    from moe_layers
    join selected_trials using (run_id)
    where cast($layer as integer) is null or moe_layers.layer = cast($layer as integer)
),

-- an example and a token may carry the same label: count the token once
labelled_tokens as (
    select distinct
        labels.run_id,
        labels.token_idx,
        labels.value
    from labels
    join selected_trials using (run_id)
    where labels.key = cast($key as varchar)
),

class_counts as (
    select
        routing.run_id,
        routing.layer,
        labelled_tokens.value,
        routing.expert,
        count(*) as n_decisions
    from routing
    join labelled_tokens using (run_id, token_idx)
    join selected_layers using (run_id, layer)
    group by routing.run_id, routing.layer, labelled_tokens.value, routing.expert
),

ranked_experts as (
    select
        class_counts.run_id,
        class_counts.layer,
        class_counts.value,
        class_counts.expert,
        row_number() over (
            partition by class_counts.run_id, class_counts.layer, class_counts.value
            order by class_counts.n_decisions desc, class_counts.expert
        ) as place
    from class_counts
),

main_experts as (
    select
        ranked_experts.run_id,
        ranked_experts.layer,
        ranked_experts.value,
        ranked_experts.expert
    from ranked_experts
    where ranked_experts.place = 1
),

final as (
    select
        selected_trials.variant,
        selected_trials.experts,
        main_a.layer,
        main_a.value as class_a,
        main_b.value as class_b,
        count(*) as n_trials,
        cast(
            sum(case when main_a.expert = main_b.expert then 1 else 0 end) as bigint
        ) as n_together
    from main_experts as main_a
    join main_experts as main_b
        on main_a.run_id = main_b.run_id
        and main_a.layer = main_b.layer
    join selected_trials
        on main_a.run_id = selected_trials.run_id
    group by
        selected_trials.variant,
        selected_trials.experts,
        main_a.layer,
        main_a.value,
        main_b.value
)

select
    final.variant,
    final.experts,
    final.layer,
    final.class_a,
    final.class_b,
    final.n_trials,
    final.n_together,
    cast(final.n_together as double) / final.n_trials as share
from final
order by
    final.variant,
    final.experts,
    final.layer,
    try_cast(final.class_a as double) nulls last,
    final.class_a,
    try_cast(final.class_b as double) nulls last,
    final.class_b;
