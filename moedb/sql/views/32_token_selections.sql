-- title: Selections of tokens
-- answers: Which tokens does each value of the parameter split read?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column token_idx: a token of it
create or replace view token_selections as
-- distinct, though no token is there twice: DuckDB then joins these two before any other table
select distinct
    selections.run_id,
    selections.selection,
    tokens.token_idx
from tokens
join selections using (run_id, example_id);
