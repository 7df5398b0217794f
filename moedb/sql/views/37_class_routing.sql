-- title: Routing of classes
-- answers: How often do the tokens with each value of each label choose each expert?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column key: the label's key, of a run, an example or a token
-- column value: the label's value
-- column layer: the MoE layer
-- column expert: an expert that a token with this value chose
-- column n_decisions: N(e,c), tokens with this value that chose the expert
-- column weight: the sum of their weights
create or replace view class_routing as
with selected_values as (
    select distinct
        selections.run_id,
        selections.selection,
        selections.example_id,
        example_values.key,
        example_values.value
    from example_values
    join selections using (run_id, example_id)
),

-- an example and a token of it may carry the same label: the token counts once
token_values as (
    select distinct
        selections.run_id,
        selections.selection,
        tokens.token_idx,
        token_labels.key,
        token_labels.value
    from token_labels
    join tokens using (run_id, token_idx)
    join selections
        on tokens.run_id = selections.run_id
        and tokens.example_id = selections.example_id
    where not exists (
        select 1
        from example_values
        where
            example_values.run_id = tokens.run_id
            and example_values.example_id = tokens.example_id
            and example_values.key = token_labels.key
            and example_values.value = token_labels.value
    )
),

counts as (
    select
        selected_values.run_id,
        selected_values.selection,
        selected_values.key,
        selected_values.value,
        example_routing.layer,
        example_routing.expert,
        sum(example_routing.n_decisions) as n_decisions,
        sum(example_routing.weight) as weight
    from example_routing
    join selected_values using (run_id, example_id)
    group by
        selected_values.run_id,
        selected_values.selection,
        selected_values.key,
        selected_values.value,
        example_routing.layer,
        example_routing.expert
    union all
    select
        token_values.run_id,
        token_values.selection,
        token_values.key,
        token_values.value,
        routing.layer,
        routing.expert,
        count(*) as n_decisions,
        sum(cast(routing.weight as double)) as weight
    from routing
    join token_values using (run_id, token_idx)
    group by
        token_values.run_id,
        token_values.selection,
        token_values.key,
        token_values.value,
        routing.layer,
        routing.expert
)

select
    counts.run_id,
    counts.selection,
    counts.key,
    counts.value,
    counts.layer,
    counts.expert,
    cast(sum(counts.n_decisions) as bigint) as n_decisions,
    sum(counts.weight) as weight
from counts
group by
    counts.run_id,
    counts.selection,
    counts.key,
    counts.value,
    counts.layer,
    counts.expert;
