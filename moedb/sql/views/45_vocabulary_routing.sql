-- title: Routing of the vocabulary
-- answers: How often does each token id choose each expert?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column of: input for the token that is routed, next for the one that follows it
-- column token_id: the token's id in the vocabulary; null for an image, and after a last token
-- column layer: the MoE layer
-- column expert: an expert that an occurrence of the token chose
-- column n_decisions: N(e,token), occurrences that chose the expert
-- column first_token_idx: the first of them
create or replace view vocabulary_routing as
with token_ids as (
    select
        tokens.run_id,
        tokens.token_idx,
        tokens.example_id,
        'input' as of,
        tokens.token_id
    from tokens
    union all
    select
        tokens.run_id,
        tokens.token_idx,
        tokens.example_id,
        'next' as of,
        lead(tokens.token_id) over (
            partition by tokens.run_id, tokens.example_id
            order by tokens.position
        ) as token_id
    from tokens
),

selected_tokens as (
    select distinct
        selections.run_id,
        selections.selection,
        token_ids.of,
        token_ids.token_id,
        token_ids.token_idx
    from token_ids
    join selections using (run_id, example_id)
)

select
    selected_tokens.run_id,
    selected_tokens.selection,
    selected_tokens.of,
    selected_tokens.token_id,
    routing.layer,
    routing.expert,
    count(*) as n_decisions,
    min(routing.token_idx) as first_token_idx
from routing
join selected_tokens using (run_id, token_idx)
group by
    selected_tokens.run_id,
    selected_tokens.selection,
    selected_tokens.of,
    selected_tokens.token_id,
    routing.layer,
    routing.expert;
