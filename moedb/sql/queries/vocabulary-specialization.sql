-- title: Vocabulary specialization
-- answers: How far does the token alone decide which expert is chosen?
-- subject: tokens
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param of varchar = 'input' in (input, next): the token that is routed, or the one that follows it
-- param min_count integer = 8 from 0: leave out rarer token ids; one that occurs once scores 1
-- column layer: the MoE layer
-- column n_token_ids: token ids counted
-- column n_tokens: their occurrences
-- column specialization: mean over token ids of the largest N(e,id) / N(id)
-- column weighted: the same with each token id counted by its occurrences
-- column baseline: the largest N(e) / T of them, the score if routing ignored the token
-- rows: layer
-- shares: specialization, weighted, baseline
-- source: OLMoE
with selected_examples as (
    select selections.example_id
    from selections
    where
        selections.run_id = cast($run as varchar)
        and selections.selection = coalesce(cast($split as varchar), 'default')
),

selected_tokens as (
    select tokens.token_id
    from tokens
    where
        cast($of as varchar) = 'input'
        and tokens.run_id = cast($run as varchar)
        and tokens.example_id in (select selected_examples.example_id from selected_examples)
    union all
    select
        lead(tokens.token_id) over (
            partition by tokens.example_id
            order by tokens.position
        ) as token_id
    from tokens
    where
        cast($of as varchar) = 'next'
        and tokens.run_id = cast($run as varchar)
        and tokens.example_id in (select selected_examples.example_id from selected_examples)
),

seen_tokens as (
    select
        selected_tokens.token_id,
        count(*) as n_token
    from selected_tokens
    where selected_tokens.token_id is not null
    group by selected_tokens.token_id
),

counted_tokens as (
    select
        seen_tokens.token_id,
        seen_tokens.n_token
    from seen_tokens
    where seen_tokens.n_token >= cast($min_count as integer)
),

totals as (
    select
        count(*) as n_token_ids,
        cast(sum(counted_tokens.n_token) as bigint) as n_tokens
    from counted_tokens
),

usage as (
    select
        vocabulary_usage.layer,
        vocabulary_usage.expert,
        sum(vocabulary_usage.n_decisions) as n_decisions,
        sum(vocabulary_usage.n_favoured) as n_favoured,
        sum(cast(vocabulary_usage.n_favoured as double) / vocabulary_usage.n_token) as favoured
    from vocabulary_usage
    where
        vocabulary_usage.run_id = cast($run as varchar)
        and vocabulary_usage.selection = coalesce(cast($split as varchar), 'default')
        and vocabulary_usage.of = cast($of as varchar)
        and vocabulary_usage.n_token >= cast($min_count as integer)
    group by vocabulary_usage.layer, vocabulary_usage.expert
),

final as (
    select
        usage.layer,
        max(totals.n_token_ids) as n_token_ids,
        max(totals.n_tokens) as n_tokens,
        sum(usage.favoured) / max(totals.n_token_ids) as specialization,
        cast(sum(usage.n_favoured) as double) / max(totals.n_tokens) as weighted,
        cast(max(usage.n_decisions) as double) / max(totals.n_tokens) as baseline
    from usage
    cross join totals
    group by usage.layer
)

select
    final.layer,
    final.n_token_ids,
    final.n_tokens,
    final.specialization,
    final.weighted,
    final.baseline
from final
order by final.layer;
