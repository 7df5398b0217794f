-- title: Pairs of experts
-- answers: How often are two experts of a layer chosen for the same token?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column layer: the MoE layer
-- column expert_a: an expert
-- column expert_b: another expert of the layer, of larger index
-- column n_both: N_ab, tokens that chose both; pairs without any are left out
create or replace view expert_pairs as
with pairs as (
    select
        decisions_a.run_id,
        decisions_a.token_idx,
        decisions_a.layer,
        decisions_a.expert as expert_a,
        decisions_b.expert as expert_b
    from routing as decisions_a
    join routing as decisions_b
        on decisions_a.run_id = decisions_b.run_id
        and decisions_a.token_idx = decisions_b.token_idx
        and decisions_a.layer = decisions_b.layer
        and decisions_a.expert < decisions_b.expert
)

select
    token_selections.run_id,
    token_selections.selection,
    pairs.layer,
    pairs.expert_a,
    pairs.expert_b,
    count(*) as n_both
from pairs
join token_selections using (run_id, token_idx)
group by
    token_selections.run_id,
    token_selections.selection,
    pairs.layer,
    pairs.expert_a,
    pairs.expert_b;
