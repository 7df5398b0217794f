-- title: Co-activation
-- answers: Which experts of a layer are chosen together for the same token?
-- subject: pairs
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
-- column independent: N_a N_b / T, N_ab if the two were independent of each other; as the k
--   experts of a token are all different, even experts drawn at random stay below it
-- column expected: N_ab by chance: where each token draws k different experts at random so that
--   each expert keeps its frequency. k(k-1) T / (E(E-1)) where all are chosen alike; over the pairs
--   of a layer it adds up to k(k-1)/2 T, over those of expert_a to (k-1) N_a
-- column lift: n_both / expected; 1 is chance
-- rows: layer, expert_a, expert_b
-- shares: p_b_given_a, p_a_given_b, jaccard
-- estimates: lift
-- absent: p_b_given_a, p_a_given_b, jaccard, lift
-- source: OLMoE; chance is conditional Poisson sampling (Hajek 1964): of all ways to draw k with
--   these frequencies the one of largest entropy. Its expectation is exact where all are chosen
--   alike, else approximated: within 0.3 % for every pair at the frequencies of the embedded model,
--   within 1 % for 4 of 60 experts where the most used one is chosen by 86 % of the tokens
with token_total as (
    select coalesce(max(selection_sizes.n_tokens), 0) as n_tokens
    from selection_sizes
    where
        selection_sizes.run_id = cast($run as varchar)
        and selection_sizes.selection = coalesce(cast($split as varchar), 'default')
),

expert_counts as (
    select
        expert_usage.layer,
        expert_usage.expert,
        expert_usage.n_decisions
    from expert_usage
    where
        expert_usage.run_id = cast($run as varchar)
        and expert_usage.selection = coalesce(cast($split as varchar), 'default')
        and (cast($layer as integer) is null or expert_usage.layer = cast($layer as integer))
),

chances as (
    select
        pair_chances.layer,
        pair_chances.expert_a,
        pair_chances.expert_b,
        pair_chances.expected
    from pair_chances
    where
        pair_chances.run_id = cast($run as varchar)
        and pair_chances.selection = coalesce(cast($split as varchar), 'default')
        and (cast($layer as integer) is null or pair_chances.layer = cast($layer as integer))
),

pair_counts as (
    select
        expert_pairs.layer,
        expert_pairs.expert_a,
        expert_pairs.expert_b,
        expert_pairs.n_both
    from expert_pairs
    where
        expert_pairs.run_id = cast($run as varchar)
        and expert_pairs.selection = coalesce(cast($split as varchar), 'default')
        and (cast($layer as integer) is null or expert_pairs.layer = cast($layer as integer))
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
            / token_total.n_tokens as independent,
        chances.expected
    from pair_counts
    cross join token_total
    join expert_counts as counts_a
        on pair_counts.layer = counts_a.layer
        and pair_counts.expert_a = counts_a.expert
    join expert_counts as counts_b
        on pair_counts.layer = counts_b.layer
        and pair_counts.expert_b = counts_b.expert
    join chances
        on pair_counts.layer = chances.layer
        and pair_counts.expert_a = chances.expert_a
        and pair_counts.expert_b = chances.expert_b
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
    final.independent,
    final.expected,
    final.n_both / final.expected as lift
from final
order by final.layer, final.expert_a, final.expert_b;
