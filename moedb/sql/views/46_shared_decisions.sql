-- title: Decisions that two runs share
-- answers: How many experts did two runs choose alike for the same tokens?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column run_b: another run, or the run itself
-- column layer: an MoE layer of both
-- column n_shared: experts that both chose for a token, over the tokens that are the same at the
--   same position of the same example
-- column n_first: of those, the ones that are first-ranked in both
create or replace view shared_decisions as
with matched_tokens as (
    select distinct
        selections.run_id,
        selections.selection,
        tokens.token_idx,
        tokens_b.run_id as run_b,
        tokens_b.token_idx as token_b
    from tokens
    join selections using (run_id, example_id)
    join tokens as tokens_b
        on tokens.example_id = tokens_b.example_id
        and tokens.position = tokens_b.position
        and tokens.token_id is not distinct from tokens_b.token_id
)

select
    matched_tokens.run_id,
    matched_tokens.selection,
    matched_tokens.run_b,
    routing.layer,
    count(*) as n_shared,
    cast(sum(case when routing.rank = 0 and routing_b.rank = 0 then 1 else 0 end) as bigint)
        as n_first
from matched_tokens
join routing
    on matched_tokens.run_id = routing.run_id
    and matched_tokens.token_idx = routing.token_idx
join routing as routing_b
    on matched_tokens.run_b = routing_b.run_id
    and matched_tokens.token_b = routing_b.token_idx
    and routing.layer = routing_b.layer
    and routing.expert = routing_b.expert
group by
    matched_tokens.run_id,
    matched_tokens.run_b,
    matched_tokens.selection,
    routing.layer;
