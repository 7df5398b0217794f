-- title: Sizes of selections
-- answers: How many tokens does each value of the parameter split read?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column n_tokens: T, its tokens
create or replace view selection_sizes as
select
    selections.run_id,
    selections.selection,
    cast(sum(examples.n_tokens) as bigint) as n_tokens
from examples
join selections using (run_id, example_id)
group by selections.run_id, selections.selection;
