-- title: Logit difference
-- answers: How well does the model tell the right answer from its foil, by label?
-- subject: predictions
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param key varchar = 'template' naming example-label-or-none: the key of a label of examples
-- param condition integer = 0: the condition; 0 is the untouched model
-- column value: the label's value; the last row, all, is over every prompt, labelled or not
-- column n_prompts: prompts with a logit difference
-- column n_correct_order: prompts whose target has the larger logit: logit difference above 0
-- column accuracy: n_correct_order / n_prompts
-- column mean_logit_diff: mean logit of the target less that of its foil (IOI: IO less S)
-- column sd_logit_diff: its sample standard deviation; null for a single prompt
-- column se_logit_diff: its standard error, sd / sqrt(n_prompts)
-- column n_top1: prompts whose most likely next token is the target
-- column top1_accuracy: n_top1 / n_prompts
-- column mean_target_logprob: mean log-probability (nats) of the target
-- rows: value
-- size: n_prompts
-- shares: accuracy, top1_accuracy
-- estimates: mean_logit_diff, sd_logit_diff, mean_target_logprob
-- signed: mean_logit_diff
-- negative: mean_target_logprob
-- shuffled: accuracy, mean_logit_diff, top1_accuracy, mean_target_logprob
-- source: Wang et al. 2022
with selected_examples as (
    select selections.example_id
    from selections
    where
        selections.run_id = cast($run as varchar)
        and selections.selection = coalesce(cast($split as varchar), 'default')
),

selected_predictions as (
    select
        predictions.example_id,
        predictions.correct,
        cast(predictions.target_logprob as double) as target_logprob,
        cast(predictions.logit_diff as double) as logit_diff
    from predictions
    join selected_examples using (example_id)
    where
        predictions.run_id = cast($run as varchar)
        and predictions.condition_id = cast($condition as integer)
        and predictions.logit_diff is not null
),

grouped_predictions as (
    select
        1 as is_all,
        'all' as value,
        selected_predictions.correct,
        selected_predictions.target_logprob,
        selected_predictions.logit_diff
    from selected_predictions
    union all
    select
        0 as is_all,
        example_labels.value,
        selected_predictions.correct,
        selected_predictions.target_logprob,
        selected_predictions.logit_diff
    from selected_predictions
    join example_labels using (example_id)
    where
        example_labels.run_id = cast($run as varchar)
        and example_labels.key = cast($key as varchar)
),

final as (
    select
        grouped_predictions.is_all,
        grouped_predictions.value,
        count(*) as n_prompts,
        cast(
            sum(case when grouped_predictions.logit_diff > 0 then 1 else 0 end) as bigint
        ) as n_correct_order,
        avg(grouped_predictions.logit_diff) as mean_logit_diff,
        stddev_samp(grouped_predictions.logit_diff) as sd_logit_diff,
        cast(sum(grouped_predictions.correct) as bigint) as n_top1,
        avg(grouped_predictions.target_logprob) as mean_target_logprob
    from grouped_predictions
    group by grouped_predictions.is_all, grouped_predictions.value
)

select
    final.value,
    final.n_prompts,
    final.n_correct_order,
    cast(final.n_correct_order as double) / final.n_prompts as accuracy,
    final.mean_logit_diff,
    final.sd_logit_diff,
    final.sd_logit_diff / sqrt(cast(final.n_prompts as double)) as se_logit_diff,
    final.n_top1,
    cast(final.n_top1 as double) / final.n_prompts as top1_accuracy,
    final.mean_target_logprob
from final
order by final.is_all, try_cast(final.value as double) nulls last, final.value;
