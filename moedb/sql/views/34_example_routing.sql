-- title: Routing of examples
-- answers: How often do the tokens of each example choose each expert?
-- column run_id: the run
-- column example_id: the example
-- column layer: the MoE layer
-- column expert: an expert that a token of the example chose
-- column n_decisions: its tokens that chose the expert
-- column weight: the sum of their weights
create or replace view example_routing as
select
    router_mass.run_id,
    router_mass.example_id,
    router_mass.layer,
    router_mass.expert,
    cast(router_mass.n_decisions as bigint) as n_decisions,
    router_mass.weight
from router_mass
where router_mass.n_decisions > 0;
