-- title: Sizes of classes
-- answers: How many tokens have each value of each label?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column key: the label's key, of a run, an example or a token
-- column value: the label's value
-- column n_tokens: N_c, tokens with this value; one that has it twice counts once
create or replace view class_sizes as
with labelled_tokens as (
    select distinct
        labels.run_id,
        selections.selection,
        labels.key,
        labels.value,
        labels.token_idx
    from labels
    join selections using (run_id, example_id)
)

select
    labelled_tokens.run_id,
    labelled_tokens.selection,
    labelled_tokens.key,
    labelled_tokens.value,
    count(*) as n_tokens
from labelled_tokens
group by
    labelled_tokens.run_id,
    labelled_tokens.selection,
    labelled_tokens.key,
    labelled_tokens.value;
