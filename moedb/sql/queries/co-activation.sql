-- title: Co-activation
-- answers: Which experts of a layer are chosen together for the same token?
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param layer integer = null: the MoE layer; all when null
-- column layer: the MoE layer
-- column expert_a: an expert
-- column expert_b: another expert of the layer, of larger index
-- column n_both: N_ab, tokens that chose both; pairs without any are left out
-- column n_a: N_a, tokens that chose expert_a
-- column n_b: N_b, tokens that chose expert_b
-- column n_tokens: T, tokens in the selection
-- column p_b_given_a: n_both / N_a
-- column p_a_given_b: n_both / N_b
-- column jaccard: n_both / (N_a + N_b - n_both)
-- column expected: N_a N_b / T, N_ab if the two were chosen independently
-- column lift: n_both / expected
-- source: OLMoE
with chosen_run as (
    select coalesce(cast($run as varchar), (select latest_run.run_id from latest_run)) as run_id
),

selected_tokens as (
    select
        tokens.run_id,
        tokens.token_idx
    from tokens
    join chosen_run using (run_id)
    join examples using (run_id, example_id)
    where case
        when cast($split as varchar) is null then examples.split <> 'corrupted'
        when cast($split as varchar) = 'all' then true
        else examples.split = cast($split as varchar)
    end
),

token_total as (
    select count(*) as n_tokens
    from selected_tokens
),

decisions as (
    select
        routing.token_idx,
        routing.layer,
        routing.expert
    from routing
    join selected_tokens using (run_id, token_idx)
    where cast($layer as integer) is null or routing.layer = cast($layer as integer)
),

expert_counts as (
    select
        decisions.layer,
        decisions.expert,
        count(*) as n_decisions
    from decisions
    group by decisions.layer, decisions.expert
),

pair_counts as (
    select
        decisions_a.layer,
        decisions_a.expert as expert_a,
        decisions_b.expert as expert_b,
        count(*) as n_both
    from decisions as decisions_a
    join decisions as decisions_b
        on decisions_a.layer = decisions_b.layer
        and decisions_a.token_idx = decisions_b.token_idx
        and decisions_a.expert < decisions_b.expert
    group by decisions_a.layer, decisions_a.expert, decisions_b.expert
),

final as (
    select
        pair_counts.layer,
        pair_counts.expert_a,
        pair_counts.expert_b,
        pair_counts.n_both,
        counts_a.n_decisions as n_a,
        counts_b.n_decisions as n_b,
        token_total.n_tokens,
        cast(pair_counts.n_both as double) / counts_a.n_decisions as p_b_given_a,
        cast(pair_counts.n_both as double) / counts_b.n_decisions as p_a_given_b,
        cast(pair_counts.n_both as double)
            / (counts_a.n_decisions + counts_b.n_decisions - pair_counts.n_both) as jaccard,
        cast(counts_a.n_decisions as double) * counts_b.n_decisions
            / token_total.n_tokens as expected
    from pair_counts
    cross join token_total
    join expert_counts as counts_a
        on pair_counts.layer = counts_a.layer
        and pair_counts.expert_a = counts_a.expert
    join expert_counts as counts_b
        on pair_counts.layer = counts_b.layer
        and pair_counts.expert_b = counts_b.expert
)

select
    final.layer,
    final.expert_a,
    final.expert_b,
    final.n_both,
    final.n_a,
    final.n_b,
    final.n_tokens,
    final.p_b_given_a,
    final.p_a_given_b,
    final.jaccard,
    final.expected,
    final.n_both / final.expected as lift
from final
order by final.layer, final.expert_a, final.expert_b;
