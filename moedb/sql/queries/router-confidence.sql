-- title: Router confidence
-- answers: How sure of its choice is the router, by layer and by label?
-- param run varchar = null: the run; the newest complete one when null
-- param split varchar = null: the examples' split; null is all but corrupted, all is every one
-- param key varchar = null: a label's key; all tokens together when null
-- column layer: the MoE layer
-- column value: the label's value; all when no key is given
-- column n_tokens: tokens with this value
-- column mean_entropy: mean entropy (bits) of the router's full distribution
-- column mean_margin: mean of the largest less the second largest router probability
-- column mean_topk_mass: mean router probability that the chosen experts hold together
-- column sd_entropy: sample standard deviation of the entropy; null for a single token
-- column mean_logsumexp: mean log-sum-exp (nats) of the router's logits
-- source: the table router_stats, averaged
with selected_examples as (
    select selections.example_id
    from selections
    where
        selections.run_id = cast($run as varchar)
        and selections.selection = coalesce(cast($split as varchar), 'default')
),

grouped_tokens as (
    select
        tokens.token_idx,
        'all' as value
    from tokens
    where
        cast($key as varchar) is null
        and tokens.run_id = cast($run as varchar)
        and tokens.example_id in (select selected_examples.example_id from selected_examples)
    union all
    select distinct
        labels.token_idx,
        labels.value
    from labels
    where
        labels.key = cast($key as varchar)
        and labels.run_id = cast($run as varchar)
        and labels.example_id in (select selected_examples.example_id from selected_examples)
),

final as (
    select
        router_stats.layer,
        grouped_tokens.value,
        count(*) as n_tokens,
        avg(cast(router_stats.entropy as double)) as mean_entropy,
        avg(cast(router_stats.margin as double)) as mean_margin,
        avg(cast(router_stats.topk_mass as double)) as mean_topk_mass,
        stddev_samp(cast(router_stats.entropy as double)) as sd_entropy,
        avg(cast(router_stats.logsumexp as double)) as mean_logsumexp
    from router_stats
    join grouped_tokens using (token_idx)
    where router_stats.run_id = cast($run as varchar)
    group by router_stats.layer, grouped_tokens.value
)

select
    final.layer,
    final.value,
    final.n_tokens,
    final.mean_entropy,
    final.mean_margin,
    final.mean_topk_mass,
    final.sd_entropy,
    final.mean_logsumexp
from final
order by final.layer, try_cast(final.value as double) nulls last, final.value;
