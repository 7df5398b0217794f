-- title: Usage of experts by the vocabulary
-- answers: How often do frequent and rare token ids choose each expert, and as their favourite?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column of: input for the token that is routed, next for the one that follows it
-- column n_token: how often a token id occurs
-- column layer: the MoE layer
-- column expert: an expert that an occurrence of such a token id chose
-- column n_decisions: decisions for the expert by all token ids that occur n_token times
-- column n_favoured: those by token ids that choose no expert of the layer more often; of experts
--   that are chosen as often it is the one of the smallest index
create or replace view vocabulary_usage as
with placed as (
    select
        vocabulary_routing.run_id,
        vocabulary_routing.selection,
        vocabulary_routing.of,
        vocabulary_routing.layer,
        vocabulary_routing.expert,
        vocabulary_routing.n_decisions,
        -- every occurrence chooses top_k experts
        cast(
            sum(vocabulary_routing.n_decisions) over (
                partition by
                    vocabulary_routing.run_id,
                    vocabulary_routing.selection,
                    vocabulary_routing.of,
                    vocabulary_routing.token_id,
                    vocabulary_routing.layer
            ) / moe_layers.top_k as bigint
        ) as n_token,
        row_number() over (
            partition by
                vocabulary_routing.run_id,
                vocabulary_routing.selection,
                vocabulary_routing.of,
                vocabulary_routing.token_id,
                vocabulary_routing.layer
            order by vocabulary_routing.n_decisions desc, vocabulary_routing.expert
        ) as place
    from vocabulary_routing
    join moe_layers using (run_id, layer)
    where vocabulary_routing.token_id is not null
)

select
    placed.run_id,
    placed.selection,
    placed.of,
    placed.n_token,
    placed.layer,
    placed.expert,
    cast(sum(placed.n_decisions) as bigint) as n_decisions,
    cast(sum(case when placed.place = 1 then placed.n_decisions else 0 end) as bigint)
        as n_favoured
from placed
group by
    placed.run_id,
    placed.selection,
    placed.of,
    placed.n_token,
    placed.layer,
    placed.expert;
