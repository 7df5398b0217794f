-- Covariances of two classes' expert shares: of two vehicles, two animals, one of each, and their size.
-- intervals are Student's t for 95 % over trials, where these differ
with shares as (
    select
        run_id, variant, experts, gate, balance, aux_coefficient, trial, value, expert,
        n_decisions / sum(n_decisions) over (partition by run_id, layer, value) as share,
        value in ('airplane', 'automobile', 'ship', 'truck') as is_vehicle
    from trial_routing
    where key = 'class'
),

pairs as (
    select
        a.run_id, a.variant, a.experts, a.gate, a.balance, a.aux_coefficient, a.trial,
        a.value as class_a, b.value as class_b,
        a.is_vehicle::int + b.is_vehicle::int as n_vehicles,
        avg((a.share - 1 / a.experts) * (b.share - 1 / a.experts) order by a.expert) as covariance
    from shares as a
    join shares as b using (run_id, expert)
    where a.value < b.value
    group by all
),

by_trial as (
    select
        variant, experts, gate, balance, aux_coefficient, trial,
        avg(covariance order by class_a, class_b) filter (n_vehicles = 2) as vehicles,
        avg(covariance order by class_a, class_b) filter (n_vehicles = 0) as animals,
        avg(covariance order by class_a, class_b) filter (n_vehicles = 1) as one_of_each,
        avg(abs(covariance) order by class_a, class_b) as mean_size
    from pairs
    group by all
),

over_trials as (
    select
        variant, experts, gate, balance, aux_coefficient, count(*) as n_trials,
        avg(vehicles order by trial) as vehicles, avg(animals order by trial) as animals,
        avg(one_of_each order by trial) as one_of_each, avg(mean_size order by trial) as mean_size,
        nullif(round(stddev_samp(mean_size order by trial), 12), 0) / sqrt(count(*)) as error,
        list_extract(
            [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262], count(*) - 1
        ) as quantile
    from by_trial
    group by all
)

select
    variant, experts, gate, balance, aux_coefficient, n_trials,
    vehicles, animals, one_of_each, mean_size,
    mean_size - quantile * error as mean_size_low, mean_size + quantile * error as mean_size_high
from over_trials
order by all
