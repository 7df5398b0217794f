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
    tokens.run_id,
    tokens.example_id,
    routing.layer,
    routing.expert,
    count(*) as n_decisions,
    sum(cast(routing.weight as double)) as weight
from routing
join tokens using (run_id, token_idx)
group by tokens.run_id, tokens.example_id, routing.layer, routing.expert;
