-- title: Vocabulary specialization
-- answers: How far does the token alone decide which expert is chosen?
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
-- source: OLMoE
with selected_examples as (
    select selections.example_id
    from selections
    where
        selections.run_id = cast($run as varchar)
        and selections.selection = coalesce(cast($split as varchar), 'default')
),

selected_tokens as (
    select
        case
            when cast($of as varchar) = 'input' then tokens.token_id
            else lead(tokens.token_id) over (
                partition by tokens.example_id
                order by tokens.position
            )
        end as token_id
    from tokens
    where
        tokens.run_id = cast($run as varchar)
        and tokens.example_id in (select selected_examples.example_id from selected_examples)
),

vocabulary as (
    select
        selected_tokens.token_id,
        count(*) as n_token
    from selected_tokens
    where selected_tokens.token_id is not null
    group by selected_tokens.token_id
),

counted_tokens as (
    select
        vocabulary.token_id,
        vocabulary.n_token
    from vocabulary
    where vocabulary.n_token >= cast($min_count as integer)
),

totals as (
    select cast(sum(counted_tokens.n_token) as bigint) as n_tokens
    from counted_tokens
),

token_counts as (
    select
        vocabulary_routing.layer,
        vocabulary_routing.expert,
        vocabulary_routing.token_id,
        counted_tokens.n_token,
        vocabulary_routing.n_decisions
    from vocabulary_routing
    join counted_tokens using (token_id)
    where
        vocabulary_routing.run_id = cast($run as varchar)
        and vocabulary_routing.selection = coalesce(cast($split as varchar), 'default')
        and vocabulary_routing.of = cast($of as varchar)
),

expert_counts as (
    select
        token_counts.layer,
        token_counts.expert,
        sum(token_counts.n_decisions) as n_decisions
    from token_counts
    group by token_counts.layer, token_counts.expert
),

most_used as (
    select
        expert_counts.layer,
        max(expert_counts.n_decisions) as n_decisions
    from expert_counts
    group by expert_counts.layer
),

largest as (
    select
        token_counts.layer,
        token_counts.token_id,
        any_value(token_counts.n_token) as n_token,
        max(token_counts.n_decisions) as n_decisions
    from token_counts
    group by token_counts.layer, token_counts.token_id
),

final as (
    select
        largest.layer,
        count(*) as n_token_ids,
        cast(sum(largest.n_token) as bigint) as n_tokens,
        avg(cast(largest.n_decisions as double) / largest.n_token) as specialization,
        cast(sum(largest.n_decisions) as double) / sum(largest.n_token) as weighted
    from largest
    group by largest.layer
)

select
    final.layer,
    final.n_token_ids,
    final.n_tokens,
    final.specialization,
    final.weighted,
    cast(most_used.n_decisions as double) / totals.n_tokens as baseline
from final
cross join totals
join most_used
    on final.layer = most_used.layer
order by final.layer;
