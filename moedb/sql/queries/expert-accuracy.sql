-- title: Accuracy of experts
-- answers: Which classes does each expert know, when every image goes to it?
-- subject: trials
-- param key varchar = 'class' naming example-label: the key of a label of examples
-- param run varchar = null: the run of a trial; every trial when null
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
-- column value: the label's value
-- column expert: the expert that every image is sent to (condition force-experts)
-- column n_images: images with this value under that condition
-- column n_correct: those classified rightly
-- column accuracy: n_correct / n_images
-- column learned: accuracy of the value's images with the learned router
-- column routed: share of the value's decisions that the learned router sends to this expert
-- source: moedb, after Poetzscher, tables 2 and 3
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
        and (cast($run as varchar) is null or trials.run_id = cast($run as varchar))
),

labelled_examples as (
    select
        example_labels.run_id,
        example_labels.example_id,
        example_labels.value
    from example_labels
    join selected_trials using (run_id)
    where example_labels.key = cast($key as varchar)
),

learned_accuracy as (
    select
        predictions.run_id,
        labelled_examples.value,
        avg(predictions.correct) as accuracy
    from predictions
    join conditions using (run_id, condition_id)
    join labelled_examples using (run_id, example_id)
    where conditions.kind = 'none'
    group by predictions.run_id, labelled_examples.value
),

forced_counts as (
    select
        predictions.run_id,
        labelled_examples.value,
        conditions.layer,
        conditions.expert,
        count(*) as n_images,
        cast(sum(predictions.correct) as bigint) as n_correct
    from predictions
    join conditions using (run_id, condition_id)
    join labelled_examples using (run_id, example_id)
    where conditions.kind = 'force-experts'
    group by predictions.run_id, labelled_examples.value, conditions.layer, conditions.expert
),

routed_shares as (
    select
        trial_routing.run_id,
        trial_routing.value,
        trial_routing.layer,
        trial_routing.expert,
        cast(trial_routing.n_decisions as double)
            / sum(trial_routing.n_decisions) over (
                partition by trial_routing.run_id, trial_routing.value, trial_routing.layer
            ) as routed
    from trial_routing
    join selected_trials using (run_id)
    where trial_routing.key = cast($key as varchar)
),

final as (
    select
        selected_trials.variant,
        selected_trials.experts,
        selected_trials.gate,
        selected_trials.balance,
        selected_trials.aux_coefficient,
        selected_trials.trial,
        forced_counts.value,
        forced_counts.layer,
        forced_counts.expert,
        forced_counts.n_images,
        forced_counts.n_correct,
        learned_accuracy.accuracy as learned,
        routed_shares.routed
    from forced_counts
    join selected_trials using (run_id)
    left join learned_accuracy
        on forced_counts.run_id = learned_accuracy.run_id
        and forced_counts.value = learned_accuracy.value
    left join routed_shares
        on forced_counts.run_id = routed_shares.run_id
        and forced_counts.value = routed_shares.value
        and forced_counts.layer = routed_shares.layer
        and forced_counts.expert = routed_shares.expert
)

select
    final.variant,
    final.experts,
    final.gate,
    final.balance,
    final.aux_coefficient,
    final.trial,
    final.value,
    final.expert,
    final.n_images,
    final.n_correct,
    cast(final.n_correct as double) / final.n_images as accuracy,
    final.learned,
    final.routed
from final
order by
    final.variant,
    final.experts,
    final.gate,
    final.balance,
    final.aux_coefficient,
    final.trial,
    try_cast(final.value as double) nulls last,
    final.value,
    final.expert,
    final.layer;
