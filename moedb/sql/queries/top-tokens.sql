-- title: Top tokens of each expert
-- answers: Which tokens does each expert take most?
-- subject: tokens
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param layer integer = null: the MoE layer; all when null
-- param expert integer = null: the expert; all when null
-- param by varchar = 'count' in (count, lift): what the tokens are ordered by
-- param min_count integer = 2 from 0: leave out tokens that occur less often in the selection
-- param n integer = 5 from 1: how many tokens for each expert
-- column layer: the MoE layer
-- column expert: the expert
-- column place: 1 for the first token, up to n
-- column token_id: the token's id in the vocabulary
-- column token: its text
-- column n_decisions: N(e,token), its occurrences that chose the expert
-- column n_token: N(token), its occurrences in the selection
-- column rate: N(e,token) / N(token)
-- column lift: rate over the expert's frequency N(e) / T
-- column context: the first of those occurrences in its text
-- rows: layer, expert, token_id
-- size: n_token
-- shares: rate
-- estimates: lift
-- source: Fedus et al. 2022, the table of tokens routed to experts
with selected_examples as (
    select selections.example_id
    from selections
    where
        selections.run_id = cast($run as varchar)
        and selections.selection = coalesce(cast($split as varchar), 'default')
),

selected_tokens as (
    select
        tokens.token_id,
        tokens.token
    from tokens
    where
        tokens.run_id = cast($run as varchar)
        and tokens.example_id in (select selected_examples.example_id from selected_examples)
),

token_total as (
    select count(*) as n_tokens
    from selected_tokens
),

seen_tokens as (
    select
        selected_tokens.token_id,
        min(selected_tokens.token) as token,
        count(*) as n_token
    from selected_tokens
    where selected_tokens.token_id is not null
    group by selected_tokens.token_id
),

token_counts as (
    select
        vocabulary_routing.layer,
        vocabulary_routing.expert,
        vocabulary_routing.token_id,
        vocabulary_routing.n_decisions,
        vocabulary_routing.first_token_idx,
        seen_tokens.n_token,
        cast(vocabulary_routing.n_decisions as double) / seen_tokens.n_token as rate
    from vocabulary_routing
    join seen_tokens using (token_id)
    where
        vocabulary_routing.run_id = cast($run as varchar)
        and vocabulary_routing.selection = coalesce(cast($split as varchar), 'default')
        and vocabulary_routing.of = 'input'
        and seen_tokens.n_token >= cast($min_count as integer)
        and (
            cast($layer as integer) is null
            or vocabulary_routing.layer = cast($layer as integer)
        )
        and (
            cast($expert as integer) is null
            or vocabulary_routing.expert = cast($expert as integer)
        )
),

-- within an expert the lift orders as the rate does
placed_tokens as (
    select
        token_counts.layer,
        token_counts.expert,
        token_counts.token_id,
        token_counts.n_decisions,
        token_counts.first_token_idx,
        token_counts.n_token,
        token_counts.rate,
        row_number() over (
            partition by token_counts.layer, token_counts.expert
            order by
                case when cast($by as varchar) = 'lift' then token_counts.rate end desc,
                token_counts.n_decisions desc,
                token_counts.rate desc,
                token_counts.token_id
        ) as place
    from token_counts
),

-- all decisions, those of rare tokens and of images too
expert_counts as (
    select
        expert_usage.layer,
        expert_usage.expert,
        expert_usage.n_decisions
    from expert_usage
    where
        expert_usage.run_id = cast($run as varchar)
        and expert_usage.selection = coalesce(cast($split as varchar), 'default')
),

leading_tokens as (
    select
        placed_tokens.layer,
        placed_tokens.expert,
        placed_tokens.token_id,
        placed_tokens.n_decisions,
        placed_tokens.first_token_idx,
        placed_tokens.n_token,
        placed_tokens.rate,
        placed_tokens.place
    from placed_tokens
    where placed_tokens.place <= cast($n as integer)
),

-- as the view token_context has it, which works it out for every token of the run
occurrences as (
    select
        tokens.token_idx,
        tokens.example_id,
        tokens.position
    from tokens
    where
        tokens.run_id = cast($run as varchar)
        and tokens.token_idx in (select leading_tokens.first_token_idx from leading_tokens)
),

surroundings as (
    select
        occurrences.token_idx,
        occurrences.example_id,
        distances.distance,
        occurrences.position + distances.distance as position
    from occurrences
    cross join (
        values (-8), (-7), (-6), (-5), (-4), (-3), (-2), (-1), (0), (1), (2), (3), (4)
    ) as distances (distance)
),

contexts as (
    select
        surroundings.token_idx,
        string_agg(
            case
                when surroundings.distance = 0 then concat('[[', tokens.token, ']]')
                else tokens.token
            end,
            '' order by surroundings.distance
        ) as context
    from surroundings
    join tokens
        on surroundings.example_id = tokens.example_id
        and surroundings.position = tokens.position
    where tokens.run_id = cast($run as varchar)
    group by surroundings.token_idx
),

final as (
    select
        leading_tokens.layer,
        leading_tokens.expert,
        leading_tokens.place,
        leading_tokens.token_id,
        seen_tokens.token,
        leading_tokens.n_decisions,
        leading_tokens.n_token,
        leading_tokens.rate,
        leading_tokens.rate
            / (cast(expert_counts.n_decisions as double) / token_total.n_tokens) as lift,
        contexts.context
    from leading_tokens
    cross join token_total
    join seen_tokens using (token_id)
    join expert_counts
        on leading_tokens.layer = expert_counts.layer
        and leading_tokens.expert = expert_counts.expert
    join contexts
        on leading_tokens.first_token_idx = contexts.token_idx
)

select
    final.layer,
    final.expert,
    final.place,
    final.token_id,
    final.token,
    final.n_decisions,
    final.n_token,
    final.rate,
    final.lift,
    final.context
from final
order by final.layer, final.expert, final.place;
