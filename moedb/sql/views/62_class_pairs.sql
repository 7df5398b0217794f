-- title: Pairs of experts of classes
-- answers: How often do the tokens with each value of each label choose two experts of a layer?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column key: the label's key, of a run, an example or a token
-- column value: the label's value
-- column layer: the MoE layer
-- column expert_a: an expert
-- column expert_b: another expert of the layer, of larger index
-- column n_both: N(a,b,c), tokens with this value that chose both; pairs without any are left out
create or replace view class_pairs as
with token_values as (
    select distinct
        labels.run_id,
        selections.selection,
        labels.key,
        labels.value,
        labels.token_idx
    from labels
    join selections using (run_id, example_id)
),

pairs as (
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
    token_values.run_id,
    token_values.selection,
    token_values.key,
    token_values.value,
    pairs.layer,
    pairs.expert_a,
    pairs.expert_b,
    count(*) as n_both
from pairs
join token_values using (run_id, token_idx)
group by
    token_values.run_id,
    token_values.selection,
    token_values.key,
    token_values.value,
    pairs.layer,
    pairs.expert_a,
    pairs.expert_b;
