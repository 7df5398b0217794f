-- title: Experts
-- answers: Which experts does each MoE layer have, those never chosen included?
-- column run_id: the run
-- column layer: the MoE layer
-- column expert: index of the routed expert
create or replace view experts as
select
    moe_layers.run_id,
    moe_layers.layer,
    cast(numbers.expert as integer) as expert
from moe_layers
cross join lateral (
    select unnest(range(moe_layers.n_experts)) as expert
) as numbers;
