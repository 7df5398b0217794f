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

grouped_tokens as (
    select
        selected_tokens.run_id,
        selected_tokens.token_idx,
        'all' as value
    from selected_tokens
    where cast($key as varchar) is null
    union all
    select distinct
        selected_tokens.run_id,
        selected_tokens.token_idx,
        labels.value
    from labels
    join selected_tokens using (run_id, token_idx)
    where labels.key = cast($key as varchar)
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
    join grouped_tokens using (run_id, token_idx)
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
