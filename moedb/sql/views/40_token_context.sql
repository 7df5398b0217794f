-- title: Tokens in context
-- answers: What stands around each token?
-- column run_id: the run
-- column token_idx: the token
-- column context: up to eight tokens before it, the token in [[ ]], up to four after it
create or replace view token_context as
select
    run_id,
    token_idx,
    concat(
        coalesce(string_agg(token, '') over earlier, ''),
        '[[', token, ']]',
        coalesce(string_agg(token, '') over later, '')
    ) as context
from tokens
window
    earlier as (
        partition by run_id, example_id order by position rows between 8 preceding and 1 preceding
    ),
    later as (
        partition by run_id, example_id order by position rows between 1 following and 4 following
    );
