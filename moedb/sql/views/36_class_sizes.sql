-- title: Sizes of classes
-- answers: How many tokens have each value of each label?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column key: the label's key, of a run, an example or a token
-- column value: the label's value
-- column n_tokens: N_c, tokens with this value; one that has it twice counts once
create or replace view class_sizes as
with token_values as (
    select distinct
        selections.run_id,
        selections.selection,
        token_labels.key,
        token_labels.value,
        tokens.token_idx
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
        selections.run_id,
        selections.selection,
        example_values.key,
        example_values.value,
        sum(examples.n_tokens) as n_tokens
    from example_values
    join examples using (run_id, example_id)
    join selections using (run_id, example_id)
    group by
        selections.run_id,
        selections.selection,
        example_values.key,
        example_values.value
    union all
    select
        token_values.run_id,
        token_values.selection,
        token_values.key,
        token_values.value,
        count(*) as n_tokens
    from token_values
    group by
        token_values.run_id,
        token_values.selection,
        token_values.key,
        token_values.value
)

select
    counts.run_id,
    counts.selection,
    counts.key,
    counts.value,
    cast(sum(counts.n_tokens) as bigint) as n_tokens
from counts
group by
    counts.run_id,
    counts.selection,
    counts.key,
    counts.value
having sum(counts.n_tokens) > 0;
