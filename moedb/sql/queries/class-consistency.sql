-- title: Consistency of classes
-- answers: In how many trials do two classes go mainly to the same expert?
-- subject: trials
-- param key varchar = 'class': the label's key, of an example, a token or a run
-- param variant varchar = null: the trials' variant; all when null
-- param experts integer = null: the trials' number of experts; all when null
-- param gate varchar = null in (weighted, unweighted): the trials' gate, weighted or
--   unweighted; all when null
-- param balance varchar = null in (mean, count, sum): the trials' balance loss, mean, count or
--   sum; all when null
-- param aux_coefficient double = null: the factor of that loss; all when null
-- param layer integer = null: the MoE layer; all when null
-- column variant: the trials' variant
-- column experts: the trials' number of experts
-- column gate: whether expert outputs are multiplied by the router's probability (weighted) or not
-- column balance: how the load balancing loss adds up a step's images: mean, count or sum
-- column aux_coefficient: the factor of that loss; null where the run does not say
-- column layer: the MoE layer
-- column class_a: a value of the label; each pair is there in both orders, and with itself
-- column class_b: the other value
-- column n_trials: trials in which both classes are there
-- column n_together: trials in which the expert that class_a chooses most often is the one that
--   class_b does; of experts chosen equally often, the smaller index
-- column share: n_together / n_trials; 1 for a class with itself
-- source: moedb, after Poetzscher, figures 2 to 4
with class_counts as (
    select
        trial_routing.run_id,
        trial_routing.variant,
        trial_routing.experts,
        trial_routing.gate,
        trial_routing.balance,
        trial_routing.aux_coefficient,
        trial_routing.layer,
        trial_routing.value,
        trial_routing.expert,
        trial_routing.n_decisions
    from trial_routing
    where
        trial_routing.key = cast($key as varchar)
        and (cast($variant as varchar) is null or trial_routing.variant = cast($variant as varchar))
        and (cast($experts as integer) is null or trial_routing.experts = cast($experts as integer))
        and (cast($gate as varchar) is null or trial_routing.gate = cast($gate as varchar))
        and (cast($balance as varchar) is null or trial_routing.balance = cast($balance as varchar))
        and (
            cast($aux_coefficient as double) is null
            or trial_routing.aux_coefficient = cast($aux_coefficient as double)
        )
        and (cast($layer as integer) is null or trial_routing.layer = cast($layer as integer))
),

ranked_experts as (
    select
        class_counts.run_id,
        class_counts.variant,
        class_counts.experts,
        class_counts.gate,
        class_counts.balance,
        class_counts.aux_coefficient,
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
        ranked_experts.variant,
        ranked_experts.experts,
        ranked_experts.gate,
        ranked_experts.balance,
        ranked_experts.aux_coefficient,
        ranked_experts.layer,
        ranked_experts.value,
        ranked_experts.expert
    from ranked_experts
    where ranked_experts.place = 1
),

final as (
    select
        main_a.variant,
        main_a.experts,
        main_a.gate,
        main_a.balance,
        main_a.aux_coefficient,
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
    group by
        main_a.variant,
        main_a.experts,
        main_a.gate,
        main_a.balance,
        main_a.aux_coefficient,
        main_a.layer,
        main_a.value,
        main_b.value
)

select
    final.variant,
    final.experts,
    final.gate,
    final.balance,
    final.aux_coefficient,
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
    final.gate,
    final.balance,
    final.aux_coefficient,
    final.layer,
    try_cast(final.class_a as double) nulls last,
    final.class_a,
    try_cast(final.class_b as double) nulls last,
    final.class_b;
