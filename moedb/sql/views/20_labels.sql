-- title: Labels of tokens
-- answers: Which labels does each token carry, those of its example and of its run included?
-- column run_id: the run
-- column token_idx: the token
-- column example_id: the token's example
-- column key: the label's key
-- column value: the label's value
create or replace view labels as
select tokens.run_id, tokens.token_idx, tokens.example_id, token_labels.key, token_labels.value
from token_labels
join tokens using (run_id, token_idx)
union all
select tokens.run_id, tokens.token_idx, tokens.example_id, example_labels.key, example_labels.value
from example_labels
join tokens using (run_id, example_id)
union all
select tokens.run_id, tokens.token_idx, tokens.example_id, run_labels.key, run_labels.value
from run_labels
join tokens using (run_id);
