-- title: Router confidence
-- answers: How sure of its choice is the router, by layer and by label?
-- subject: experts
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
-- rows: layer, value
-- size: n_tokens
-- estimates: mean_entropy, mean_margin, mean_topk_mass, sd_entropy, mean_logsumexp
-- shuffled: mean_entropy, mean_margin, mean_topk_mass, sd_entropy, mean_logsumexp
-- source: the table router_stats, averaged
with final as (
    select
        selection_router_stats.layer,
        'all' as value,
        selection_router_stats.n_tokens,
        selection_router_stats.mean_entropy,
        selection_router_stats.mean_margin,
        selection_router_stats.mean_topk_mass,
        selection_router_stats.sd_entropy,
        selection_router_stats.mean_logsumexp
    from selection_router_stats
    where
        cast($key as varchar) is null
        and selection_router_stats.run_id = cast($run as varchar)
        and selection_router_stats.selection = coalesce(cast($split as varchar), 'default')
    union all
    select
        class_router_stats.layer,
        class_router_stats.value,
        class_router_stats.n_tokens,
        class_router_stats.mean_entropy,
        class_router_stats.mean_margin,
        class_router_stats.mean_topk_mass,
        class_router_stats.sd_entropy,
        class_router_stats.mean_logsumexp
    from class_router_stats
    where
        class_router_stats.key = cast($key as varchar)
        and class_router_stats.run_id = cast($run as varchar)
        and class_router_stats.selection = coalesce(cast($split as varchar), 'default')
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
