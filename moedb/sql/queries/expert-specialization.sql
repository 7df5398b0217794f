-- title: Specialization of experts
-- answers: Which value of a label does each expert take most, and how purely?
-- subject: labels
-- param key varchar: the label's key, of a run, an example or a token
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param layer integer = null: the MoE layer; all when null
-- param min_decisions integer = 20 from 0: leave out experts with fewer labelled decisions
-- column layer: the MoE layer
-- column expert: the expert
-- column n_decisions: N(e), its decisions for tokens that have the label
-- column n_values: values of the label among them
-- column top_value: the value with the largest P(c given e); of equals the smaller one
-- column n_top: N(e,c) of that value
-- column exclusivity: P(c given e) of that value, n_top / n_decisions
-- column conditional_entropy: H(c given this e) in bits; 0 for an expert of one value
-- column normalized_entropy: the same over log2 of the number of values in the selection
-- column pmi: log2 of P(c given e) / P(c) of that value, P(c) over the layer's labelled decisions
-- rows: layer, expert
-- size: n_decisions
-- shares: exclusivity
-- estimates: conditional_entropy, normalized_entropy, pmi
-- signed: pmi
-- shuffled: exclusivity, conditional_entropy
-- source: moedb, after OLMoE, domain specialization
with class_counts as (
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
    select count(distinct class_counts.value) as n_values
    from class_counts
),

class_totals as (
    select
        class_counts.layer,
        class_counts.value,
        cast(sum(class_counts.n_decisions) as double) as n_decisions
    from class_counts
    group by class_counts.layer, class_counts.value
),

layer_totals as (
    select
        class_counts.layer,
        cast(sum(class_counts.n_decisions) as double) as n_decisions
    from class_counts
    group by class_counts.layer
),

expert_totals as (
    select
        class_counts.layer,
        class_counts.expert,
        cast(sum(class_counts.n_decisions) as bigint) as n_decisions,
        count(*) as n_values
    from class_counts
    group by class_counts.layer, class_counts.expert
),

shares as (
    select
        class_counts.layer,
        class_counts.expert,
        class_counts.value,
        class_counts.n_decisions,
        cast(class_counts.n_decisions as double) / expert_totals.n_decisions as share,
        row_number() over (
            partition by class_counts.layer, class_counts.expert
            order by
                class_counts.n_decisions desc,
                try_cast(class_counts.value as double) nulls last,
                class_counts.value
        ) as place
    from class_counts
    join expert_totals using (layer, expert)
),

expert_entropies as (
    select
        shares.layer,
        shares.expert,
        -- each term is log2 of 1 / p, so that an entropy of 0 has no sign
        sum(shares.share * log2(1 / shares.share)) as entropy
    from shares
    group by shares.layer, shares.expert
),

final as (
    select
        expert_totals.layer,
        expert_totals.expert,
        expert_totals.n_decisions,
        expert_totals.n_values,
        shares.value as top_value,
        shares.n_decisions as n_top,
        shares.share as exclusivity,
        expert_entropies.entropy as conditional_entropy,
        case
            when value_total.n_values > 1
            then expert_entropies.entropy / log2(value_total.n_values)
        end as normalized_entropy,
        log2(shares.share / (class_totals.n_decisions / layer_totals.n_decisions)) as pmi
    from expert_totals
    join shares using (layer, expert)
    join expert_entropies using (layer, expert)
    join class_totals
        on shares.layer = class_totals.layer
        and shares.value = class_totals.value
    join layer_totals on expert_totals.layer = layer_totals.layer
    cross join value_total
    where shares.place = 1
        and expert_totals.n_decisions >= cast($min_decisions as integer)
)

select
    final.layer,
    final.expert,
    final.n_decisions,
    final.n_values,
    final.top_value,
    final.n_top,
    final.exclusivity,
    final.conditional_entropy,
    final.normalized_entropy,
    final.pmi
from final
order by final.layer, final.exclusivity desc, final.expert;
