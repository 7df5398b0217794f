-- title: Router probability of experts
-- answers: How much probability does the router give each expert in each selection of examples?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column layer: the MoE layer
-- column expert: an expert
-- column probability: the router's probability of it, summed over tokens
create or replace view expert_mass as
select
    selections.run_id,
    selections.selection,
    router_mass.layer,
    router_mass.expert,
    sum(cast(router_mass.probability as double)) as probability
from router_mass
join selections using (run_id, example_id)
group by selections.run_id, selections.selection, router_mass.layer, router_mass.expert;
