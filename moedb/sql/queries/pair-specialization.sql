-- title: Specialization of pairs of experts
-- answers: Which value of a label do two experts take together, and does that say more than either?
-- subject: labels
-- param key varchar: the label's key, of a run, an example or a token
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param layer integer = null: the MoE layer; all when null
-- param min_decisions integer = 20 from 0: leave out pairs that fewer labelled tokens chose
-- column layer: the MoE layer
-- column expert_a: an expert
-- column expert_b: another expert of the layer, of larger index
-- column n_both: N(a,b), tokens that have the label and chose both
-- column n_a: N(a), tokens that have the label and chose expert_a
-- column n_b: N(b), tokens that have the label and chose expert_b
-- column n_values: values of the label among n_both
-- column top_value: the value with the largest P(c given a, b); of equals the smaller one
-- column n_top: N(a,b,c) of that value
-- column exclusivity: P(c given a, b) of that value, n_top / n_both
-- column conditional_entropy: H(c given these a, b) in bits; 0 for a pair of one value
-- column normalized_entropy: the same over log2 of the number of values in the selection
-- column pmi: log2 of P(c given a, b) / P(c) of that value, P(c) over the layer's labelled
--   decisions
-- column exclusivity_a: the exclusivity of expert_a alone, of whichever value is its own top one
-- column exclusivity_b: the exclusivity of expert_b alone
-- column gain: exclusivity less the larger of these two. Of few tokens the largest of several
--   shares is large by chance: hold it against n_both
-- column independent: P(c given a, b) of top_value if, among the tokens of a value, the choices of
--   a and b were independent: P(c given a) P(c given b) / P(c) over its sum over the values
-- rows: layer, expert_a, expert_b
-- size: n_both
-- shares: exclusivity, exclusivity_a, exclusivity_b, independent
-- estimates: conditional_entropy, normalized_entropy, pmi, gain
-- signed: pmi, gain
-- source: moedb, after OLMoE, domain specialization and co-activation
with pair_counts as (
    select
        class_pairs.layer,
        class_pairs.value,
        class_pairs.expert_a,
        class_pairs.expert_b,
        class_pairs.n_both
    from class_pairs
    where
        class_pairs.run_id = cast($run as varchar)
        and class_pairs.selection = coalesce(cast($split as varchar), 'default')
        and class_pairs.key = cast($key as varchar)
        and (cast($layer as integer) is null or class_pairs.layer = cast($layer as integer))
),

expert_counts as (
    select
        class_routing.layer,
        class_routing.value,
        class_routing.expert,
        class_routing.n_decisions
    from class_routing
    where
        class_routing.run_id = cast($run as varchar)
        and class_routing.selection = coalesce(cast($split as varchar), 'default')
        and class_routing.key = cast($key as varchar)
        and (cast($layer as integer) is null or class_routing.layer = cast($layer as integer))
),

value_total as (
    select count(distinct expert_counts.value) as n_values
    from expert_counts
),

layer_totals as (
    select
        expert_counts.layer,
        cast(sum(expert_counts.n_decisions) as double) as n_decisions
    from expert_counts
    group by expert_counts.layer
),

class_shares as (
    select
        expert_counts.layer,
        expert_counts.value,
        cast(sum(expert_counts.n_decisions) as double) / max(layer_totals.n_decisions) as share
    from expert_counts
    join layer_totals using (layer)
    group by expert_counts.layer, expert_counts.value
),

expert_totals as (
    select
        expert_counts.layer,
        expert_counts.expert,
        cast(sum(expert_counts.n_decisions) as bigint) as n_decisions,
        cast(max(expert_counts.n_decisions) as double)
            / sum(expert_counts.n_decisions) as exclusivity
    from expert_counts
    group by expert_counts.layer, expert_counts.expert
),

pair_sums as (
    select
        pair_counts.layer,
        pair_counts.expert_a,
        pair_counts.expert_b,
        cast(sum(pair_counts.n_both) as bigint) as n_both,
        count(*) as n_values
    from pair_counts
    group by pair_counts.layer, pair_counts.expert_a, pair_counts.expert_b
),

pair_totals as (
    select
        pair_sums.layer,
        pair_sums.expert_a,
        pair_sums.expert_b,
        pair_sums.n_both,
        pair_sums.n_values
    from pair_sums
    where pair_sums.n_both >= cast($min_decisions as integer)
),

shares as (
    select
        pair_counts.layer,
        pair_counts.expert_a,
        pair_counts.expert_b,
        pair_counts.value,
        pair_counts.n_both,
        cast(pair_counts.n_both as double) / pair_totals.n_both as share,
        row_number() over (
            partition by pair_counts.layer, pair_counts.expert_a, pair_counts.expert_b
            order by
                pair_counts.n_both desc,
                try_cast(pair_counts.value as double) nulls last,
                pair_counts.value
        ) as place
    from pair_counts
    join pair_totals using (layer, expert_a, expert_b)
),

pair_entropies as (
    select
        shares.layer,
        shares.expert_a,
        shares.expert_b,
        -- each term is log2 of 1 / p, so that an entropy of 0 has no sign
        sum(shares.share * log2(1 / shares.share)) as entropy
    from shares
    group by shares.layer, shares.expert_a, shares.expert_b
),

-- proportional to P(c given a) P(c given b) / P(c); of a value that one of them never takes it is 0
products as (
    select
        pair_totals.layer,
        pair_totals.expert_a,
        pair_totals.expert_b,
        counts_a.value,
        cast(counts_a.n_decisions as double) * counts_b.n_decisions / class_shares.share as product
    from pair_totals
    join expert_counts as counts_a
        on pair_totals.layer = counts_a.layer
        and pair_totals.expert_a = counts_a.expert
    join expert_counts as counts_b
        on pair_totals.layer = counts_b.layer
        and pair_totals.expert_b = counts_b.expert
        and counts_a.value = counts_b.value
    join class_shares
        on counts_a.layer = class_shares.layer
        and counts_a.value = class_shares.value
),

product_totals as (
    select
        products.layer,
        products.expert_a,
        products.expert_b,
        sum(products.product) as total
    from products
    group by products.layer, products.expert_a, products.expert_b
),

final as (
    select
        pair_totals.layer,
        pair_totals.expert_a,
        pair_totals.expert_b,
        pair_totals.n_both,
        totals_a.n_decisions as n_a,
        totals_b.n_decisions as n_b,
        pair_totals.n_values,
        shares.value as top_value,
        shares.n_both as n_top,
        shares.share as exclusivity,
        pair_entropies.entropy as conditional_entropy,
        case
            when value_total.n_values > 1
            then pair_entropies.entropy / log2(value_total.n_values)
        end as normalized_entropy,
        log2(shares.share / class_shares.share) as pmi,
        totals_a.exclusivity as exclusivity_a,
        totals_b.exclusivity as exclusivity_b,
        products.product / product_totals.total as independent
    from pair_totals
    join shares using (layer, expert_a, expert_b)
    join pair_entropies using (layer, expert_a, expert_b)
    join products
        on shares.layer = products.layer
        and shares.expert_a = products.expert_a
        and shares.expert_b = products.expert_b
        and shares.value = products.value
    join product_totals
        on shares.layer = product_totals.layer
        and shares.expert_a = product_totals.expert_a
        and shares.expert_b = product_totals.expert_b
    join class_shares
        on shares.layer = class_shares.layer
        and shares.value = class_shares.value
    join expert_totals as totals_a
        on pair_totals.layer = totals_a.layer
        and pair_totals.expert_a = totals_a.expert
    join expert_totals as totals_b
        on pair_totals.layer = totals_b.layer
        and pair_totals.expert_b = totals_b.expert
    cross join value_total
    where shares.place = 1
)

select
    final.layer,
    final.expert_a,
    final.expert_b,
    final.n_both,
    final.n_a,
    final.n_b,
    final.n_values,
    final.top_value,
    final.n_top,
    final.exclusivity,
    final.conditional_entropy,
    final.normalized_entropy,
    final.pmi,
    final.exclusivity_a,
    final.exclusivity_b,
    final.exclusivity - greatest(final.exclusivity_a, final.exclusivity_b) as gain,
    final.independent
from final
order by final.layer, final.exclusivity desc, final.n_both desc, final.expert_a, final.expert_b;
