-- title: Router statistics of classes
-- answers: How sure of its choice is the router on average, for each value of each label?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column key: the label's key, of a run, an example or a token
-- column value: the label's value
-- column layer: the MoE layer
-- column n_tokens: the tokens with this value
-- column mean_entropy: mean entropy (bits) of the router's full distribution
-- column mean_margin: mean of the largest less the second largest router probability
-- column mean_topk_mass: mean router probability that the chosen experts hold together
-- column sd_entropy: sample standard deviation of the entropy; null for a single token
-- column mean_logsumexp: mean log-sum-exp (nats) of the router's logits
create or replace view class_router_stats as
with token_values as (
    select distinct
        labels.run_id,
        selections.selection,
        labels.key,
        labels.value,
        labels.token_idx
    from labels
    join selections using (run_id, example_id)
)

select
    token_values.run_id,
    token_values.selection,
    token_values.key,
    token_values.value,
    router_stats.layer,
    count(*) as n_tokens,
    avg(cast(router_stats.entropy as double)) as mean_entropy,
    avg(cast(router_stats.margin as double)) as mean_margin,
    avg(cast(router_stats.topk_mass as double)) as mean_topk_mass,
    stddev_samp(cast(router_stats.entropy as double)) as sd_entropy,
    avg(cast(router_stats.logsumexp as double)) as mean_logsumexp
from router_stats
join token_values using (run_id, token_idx)
group by token_values.run_id, token_values.selection, token_values.key, token_values.value, router_stats.layer;
