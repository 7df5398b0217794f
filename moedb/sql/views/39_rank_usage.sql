-- title: Usage of experts by rank
-- answers: How often is each expert chosen at each rank?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column layer: the MoE layer
-- column rank: the rank
-- column expert: an expert that a token chose at that rank
-- column n_decisions: tokens that chose it there
create or replace view rank_usage as
select
    token_selections.run_id,
    token_selections.selection,
    routing.layer,
    routing.rank,
    routing.expert,
    count(*) as n_decisions
from routing
join token_selections using (run_id, token_idx)
group by
    token_selections.run_id,
    token_selections.selection,
    routing.layer,
    routing.rank,
    routing.expert;
