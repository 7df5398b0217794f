-- How evenly trials of a training use their experts, on average, and how many leave one idle.
-- an expert is idle below a tenth of an even share
select
    variant, experts, gate, balance, aux_coefficient, count(*) as n_trials,
    avg(smallest_share order by trial) as smallest_share,
    avg(largest_share order by trial) as largest_share,
    sum((smallest_share < 0.1 / experts)::int) as n_with_idle,
    avg(normalized_entropy order by trial) as normalized_entropy,
    min(normalized_entropy) as lowest_entropy, max(normalized_entropy) as highest_entropy
from load_balance_by_trial()
group by all
order by all
