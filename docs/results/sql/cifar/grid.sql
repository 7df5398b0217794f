-- Trainings side by side, a row each, as means over trials: evenness, classes, a random router's cost.
-- vehicles, animals: mean shares of their classes in the expert that gets most vehicles, the first of equals
with shares as (
    select
        variant, experts, gate, balance, aux_coefficient, trial, value, expert,
        n_decisions::double as n,
        sum(n_decisions) over (partition by run_id) as total,
        sum(n_decisions) over (partition by run_id, value) as of_class,
        sum(n_decisions) over (partition by run_id, expert) as of_expert,
        value in ('airplane', 'automobile', 'ship', 'truck') as is_vehicle
    from trial_routing
    where key = 'class'
),

by_expert as (
    select
        variant, experts, gate, balance, aux_coefficient, trial, expert,
        avg(n / of_class order by value) filter (is_vehicle) as vehicles,
        avg(n / of_class order by value) filter (not is_vehicle) as animals,
        sum(
            case when n > 0 then n / total * log2(n * total / (of_class * of_expert)) else 0 end
            order by value
        ) as bits
    from shares
    group by all
),

classes as (
    select
        variant, experts, gate, balance, aux_coefficient, trial,
        first(vehicles order by round(vehicles, 12) desc, expert) as vehicles,
        first(animals order by round(vehicles, 12) desc, expert) as animals,
        sum(bits order by expert) as bits
    from by_expert
    group by all
),

by_trial as (
    select
        classes.*, evenness.smallest_share, evenness.largest_share, ablation.learned,
        ablation.decrease
    from classes
    join load_balance_by_trial() as evenness
        using (variant, experts, gate, balance, aux_coefficient, trial)
    join router_ablation(level := 'trial') as ablation
        using (variant, experts, gate, balance, aux_coefficient, trial)
)

select
    variant, experts, gate, balance, aux_coefficient, count(*) as n_trials,
    avg(learned order by trial) as learned,
    avg(smallest_share order by trial) as smallest_share,
    avg(largest_share order by trial) as largest_share,
    sum((smallest_share < 0.1 / experts)::int) as n_with_idle,
    avg(vehicles order by trial) as vehicles, avg(animals order by trial) as animals,
    avg(bits order by trial) as bits, stddev_samp(bits order by trial) as bits_sd,
    avg(decrease order by trial) as decrease, stddev_samp(decrease order by trial) as decrease_sd
from by_trial
group by all
order by all
