-- What the labels are worth, beside those of other experts and saying yes to everything.
-- an interval is the mean over experts with Student's t for 95 %, expanded to the first order
with verdicts as (
    select
        kind, count(*) as n_verdicts,
        cast(round(100 * avg(says_yes::int)) as integer) as percent_yes,
        cast(round(100 * avg((says_yes = other_says_yes)::int)) as integer) as percent_same
    from label_verdicts
    where run_id = $run
    group by kind
),

leads as (
    select
        kind, f1, always_yes_f1, other_f1, f1 - other_f1 as lead, f1 - always_yes_f1 as lead_yes,
        balanced_accuracy, other_balanced_accuracy
    from expert_label_scores
    where run_id = $run and against = 'all' and f1 is not null and other_f1 is not null
)

select
    kind, count(*) as n_experts, any_value(n_verdicts) as n_verdicts,
    avg(f1) as f1, avg(other_f1) as other_label, avg(always_yes_f1) as always_yes,
    avg(lead) as lead,
    avg(lead) - (1.96 + 2.37 / (count(*) - 1)) * stddev_samp(lead) / sqrt(count(*)) as lead_low,
    avg(lead) + (1.96 + 2.37 / (count(*) - 1)) * stddev_samp(lead) / sqrt(count(*)) as lead_high,
    avg((lead > 0)::int) as share_ahead, avg((lead_yes > 0)::int) as share_above_yes,
    avg(balanced_accuracy) as accuracy, avg(other_balanced_accuracy) as other_accuracy,
    any_value(percent_yes) as percent_yes, any_value(percent_same) as percent_same
from leads
join verdicts using (kind)
group by kind
order by kind
