-- What the class of an image says of its expert: mutual information in bits, over trials.
-- share: of the entropy of the experts, all of which could be said; intervals as in subjects.sql
with counts as (
    select
        run_id, variant, experts, gate, balance, aux_coefficient, trial, value, expert,
        n_decisions::double as n,
        sum(n_decisions) over (partition by run_id) as total,
        sum(n_decisions) over (partition by run_id, value) as of_class,
        sum(n_decisions) over (partition by run_id, expert) as of_expert
    from trial_routing
    where key = 'class' and n_decisions > 0
),

by_trial as (
    select
        variant, experts, gate, balance, aux_coefficient, trial,
        sum(n / total * log2(n * total / (of_class * of_expert)) order by value, expert)
            as bits,
        sum(n / total * log2(total / of_expert) order by value, expert) as entropy
    from counts
    group by all
),

over_trials as (
    select
        variant, experts, gate, balance, aux_coefficient, count(*) as n_trials,
        avg(bits order by trial) as bits, avg(entropy order by trial) as entropy,
        avg(bits / entropy order by trial) as share,
        nullif(round(stddev_samp(bits order by trial), 12), 0) / sqrt(count(*)) as bits_error,
        nullif(round(stddev_samp(bits / entropy order by trial), 12), 0) / sqrt(count(*)) as share_error,
        list_extract(
            [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262], count(*) - 1
        ) as quantile
    from by_trial
    group by all
),

-- a missing end stays missing: greatest and least would leave it out
ends as (
    select
        *,
        case when bits_error > 0 then greatest(bits - quantile * bits_error, 0) end as bits_low,
        bits + quantile * bits_error as bits_high,
        case when share_error > 0 then greatest(share - quantile * share_error, 0) end as share_low,
        case when share_error > 0 then least(share + quantile * share_error, 1) end as share_high
    from over_trials
)

select
    variant, experts, gate, balance, aux_coefficient, n_trials, entropy,
    bits, bits_low, bits_high, share, share_low, share_high
from ends
order by all
