-- title: Router ablation
-- answers: How much accuracy is lost when a random router takes the place of the learned one?
-- subject: trials
-- param level varchar = 'experts' in (experts, trial): one row per number of experts of a variant
--   that is trained alike, or one per trial
-- param variant varchar = null: the trials' variant; all when null
-- param experts integer = null: the trials' number of experts; all when null
-- param gate varchar = null in (weighted, unweighted): the trials' gate, weighted or
--   unweighted; all when null
-- param balance varchar = null in (mean, count, sum): the trials' balance loss, mean, count or
--   sum; all when null
-- param aux_coefficient double = null: the factor of that loss; all when null
-- column variant: the trials' variant
-- column experts: the trials' number of experts
-- column gate: whether expert outputs are multiplied by the router's probability (weighted) or not
-- column balance: how the load balancing loss adds up a step's images: mean, count or sum
-- column aux_coefficient: the factor of that loss; null where the run does not say
-- column trial: the trial; null at level experts
-- column n_trials: trials behind the row
-- column n_images: images classified with the learned router, over the trials
-- column n_correct: those classified rightly
-- column learned: n_correct / n_images, the accuracy with the learned router
-- column random: accuracy with experts drawn uniformly, mean over draws and images; null without
--   such a condition, trials without one left out, here and in the next two
-- column reweighted: the same draws, each expert weighted by its own router probability
-- column reinitialized: accuracy with the learned router and newly initialized experts
-- column decrease: percent, 100 * (learned - random) / learned
-- column decrease_error: its standard error, of several trials over the trials, as these classify
--   the same images: decrease_sd over the root of their number. Of a single trial over its images,
--   which says nothing of another one: 100 / learned times that of the mean of an image's learned
--   less its mean random correctness, learned in the denominator taken as fixed
-- column error_over: what decrease_error is over, trials or images
-- column learned_sd: sample standard deviation of learned over the trials; null for a single one
-- column random_sd: that of random
-- column decrease_sd: that of decrease
-- source: Poetzscher, table 1
with selected_trials as (
    select
        trials.run_id,
        trials.variant,
        trials.experts,
        trials.gate,
        trials.balance,
        trials.aux_coefficient,
        case when cast($level as varchar) = 'trial' then trials.trial end as trial
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
),

image_results as (
    select
        predictions.run_id,
        predictions.example_id,
        max(case when conditions.kind = 'none' then predictions.correct end) as learned,
        avg(case when conditions.kind = 'random-routing' then predictions.correct end) as random,
        avg(
            case when conditions.kind = 'random-routing-reweighted' then predictions.correct end
        ) as reweighted,
        avg(
            case when conditions.kind = 'reinitialize-experts' then predictions.correct end
        ) as reinitialized
    from predictions
    join conditions using (run_id, condition_id)
    join selected_trials using (run_id)
    group by predictions.run_id, predictions.example_id
),

-- fractions are added up in an order of their own: the last digit must not depend on threads
trial_results as (
    select
        image_results.run_id,
        avg(image_results.learned) as learned,
        avg(image_results.random order by image_results.random) as random
    from image_results
    group by image_results.run_id
),

over_trials as (
    select
        selected_trials.variant,
        selected_trials.experts,
        selected_trials.gate,
        selected_trials.balance,
        selected_trials.aux_coefficient,
        selected_trials.trial,
        count(*) as n_trials,
        count(
            (trial_results.learned - trial_results.random) / nullif(trial_results.learned, 0)
        ) as n_compared,
        stddev_samp(trial_results.learned order by trial_results.run_id) as learned_sd,
        stddev_samp(trial_results.random order by trial_results.run_id) as random_sd,
        stddev_samp(
            100 * (trial_results.learned - trial_results.random)
            / nullif(trial_results.learned, 0)
            order by trial_results.run_id
        ) as decrease_sd
    from selected_trials
    left join trial_results using (run_id)
    group by
        selected_trials.variant,
        selected_trials.experts,
        selected_trials.gate,
        selected_trials.balance,
        selected_trials.aux_coefficient,
        selected_trials.trial
),

over_images as (
    select
        selected_trials.variant,
        selected_trials.experts,
        selected_trials.gate,
        selected_trials.balance,
        selected_trials.aux_coefficient,
        selected_trials.trial,
        count(image_results.learned) as n_images,
        cast(coalesce(sum(image_results.learned), 0) as bigint) as n_correct,
        avg(image_results.learned) as learned,
        avg(image_results.random order by image_results.random) as random,
        avg(image_results.reweighted order by image_results.reweighted) as reweighted,
        avg(image_results.reinitialized order by image_results.reinitialized) as reinitialized,
        count(image_results.learned - image_results.random) as n_differences,
        stddev_samp(
            image_results.learned - image_results.random
            order by image_results.learned - image_results.random
        ) as difference_sd
    from selected_trials
    left join image_results using (run_id)
    group by
        selected_trials.variant,
        selected_trials.experts,
        selected_trials.gate,
        selected_trials.balance,
        selected_trials.aux_coefficient,
        selected_trials.trial
),

final as (
    select
        over_images.variant,
        over_images.experts,
        over_images.gate,
        over_images.balance,
        over_images.aux_coefficient,
        over_images.trial,
        over_trials.n_trials,
        over_images.n_images,
        over_images.n_correct,
        over_images.learned,
        over_images.random,
        over_images.reweighted,
        over_images.reinitialized,
        100 * (over_images.learned - over_images.random)
            / nullif(over_images.learned, 0) as decrease,
        case
            when over_trials.n_compared > 1
                then over_trials.decrease_sd / sqrt(cast(over_trials.n_compared as double))
            else 100 * over_images.difference_sd / sqrt(cast(over_images.n_differences as double))
                / nullif(over_images.learned, 0)
        end as decrease_error,
        case
            when over_trials.n_compared > 1 then 'trials'
            when over_images.difference_sd is not null and over_images.learned > 0 then 'images'
        end as error_over,
        over_trials.learned_sd,
        over_trials.random_sd,
        over_trials.decrease_sd
    from over_images
    join over_trials
        on over_images.variant = over_trials.variant
        and over_images.experts = over_trials.experts
        and over_images.gate = over_trials.gate
        and over_images.balance = over_trials.balance
        and over_images.aux_coefficient is not distinct from over_trials.aux_coefficient
        and over_images.trial is not distinct from over_trials.trial
)

select
    final.variant,
    final.experts,
    final.gate,
    final.balance,
    final.aux_coefficient,
    final.trial,
    final.n_trials,
    final.n_images,
    final.n_correct,
    final.learned,
    final.random,
    final.reweighted,
    final.reinitialized,
    final.decrease,
    final.decrease_error,
    final.error_over,
    final.learned_sd,
    final.random_sd,
    final.decrease_sd
from final
order by
    final.variant,
    final.experts,
    final.gate,
    final.balance,
    final.aux_coefficient,
    final.trial;
