-- title: Usage of experts
-- answers: How often is each expert chosen in each selection of examples?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column layer: the MoE layer
-- column expert: an expert that a token chose
-- column n_decisions: N(e), tokens that chose the expert
create or replace view expert_usage as
select
    selections.run_id,
    selections.selection,
    example_routing.layer,
    example_routing.expert,
    cast(sum(example_routing.n_decisions) as bigint) as n_decisions
from example_routing
join selections using (run_id, example_id)
group by
    selections.run_id, selections.selection, example_routing.layer, example_routing.expert;
