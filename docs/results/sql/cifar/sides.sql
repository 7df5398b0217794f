-- Whether vehicles go to one expert, and animals elsewhere: the expert that gets most of them.
-- of experts that get as much of a class or of them, the first
-- intervals as in subjects.sql
-- together: all four classes of vehicles have the same main expert; apart: no class of animals has it
with shares as (
    select
        run_id, variant, experts, gate, balance, aux_coefficient, trial, value, expert,
        n_decisions / sum(n_decisions) over (partition by run_id, layer, value) as share,
        value in ('airplane', 'automobile', 'ship', 'truck') as is_vehicle
    from trial_routing
    where key = 'class'
),

sides as (
    select
        run_id, variant, experts, gate, balance, aux_coefficient, trial, expert,
        avg(share order by value) filter (is_vehicle) as vehicles,
        min(share) filter (is_vehicle) as lowest_vehicle,
        avg(share order by value) filter (not is_vehicle) as animals,
        max(share) filter (not is_vehicle) as highest_animal
    from shares
    group by all
),

main as (
    select run_id, value, is_vehicle, expert
    from shares
    qualify row_number() over (partition by run_id, value order by share desc, expert) = 1
),

chosen as (
    select *, max(animals) over (partition by run_id) as most_animals
    from sides
    -- rounded, for means that differ in the order of their sum alone
    qualify row_number() over (
        partition by run_id order by round(vehicles, 12) desc, expert
    ) = 1
),

by_trial as (
    select
        chosen.run_id, chosen.variant, chosen.experts, chosen.gate, chosen.balance,
        chosen.aux_coefficient, chosen.trial, chosen.vehicles,
        chosen.lowest_vehicle, chosen.animals, chosen.highest_animal, chosen.most_animals,
        bool_and(main.expert = chosen.expert) filter (main.is_vehicle) as together,
        bool_and(main.expert <> chosen.expert) filter (not main.is_vehicle) as apart
    from chosen
    join main using (run_id)
    group by all
),

over_trials as (
    select
        variant, experts, gate, balance, aux_coefficient, count(*) as n_trials,
        sum(together::int) as n_together, sum((together and apart)::int) as n_apart,
        avg(vehicles order by trial) as vehicles, min(lowest_vehicle) as lowest_vehicle,
        avg(animals order by trial) as animals, max(highest_animal) as highest_animal,
        avg(most_animals order by trial) as most_animals,
        nullif(round(stddev_samp(vehicles order by trial), 12), 0) / sqrt(count(*)) as vehicles_error,
        nullif(round(stddev_samp(animals order by trial), 12), 0) / sqrt(count(*)) as animals_error,
        list_extract(
            [12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262], count(*) - 1
        ) as quantile
    from by_trial
    group by all
)

-- a missing end stays missing: greatest and least would leave it out
select
    variant, experts, gate, balance, aux_coefficient, n_trials, n_together, n_apart, vehicles,
    case when vehicles_error > 0 then greatest(vehicles - quantile * vehicles_error, 0) end
        as vehicles_low,
    case when vehicles_error > 0 then least(vehicles + quantile * vehicles_error, 1) end
        as vehicles_high,
    lowest_vehicle, animals,
    case when animals_error > 0 then greatest(animals - quantile * animals_error, 0) end
        as animals_low,
    case when animals_error > 0 then least(animals + quantile * animals_error, 1) end
        as animals_high,
    highest_animal, most_animals
from over_trials
order by all
