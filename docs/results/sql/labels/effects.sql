-- What the ablation of labelled experts and of controls changes, by groups of tokens.
with effects as (
    select
        role, cluster, next_change, following_change,
        case when role <> 'control-own' then routed end as chose_it,
        case when role <> 'control-own' then fits end as label_fits
    from label_effects
    where run_id = $run
)

select
    role, chose_it, label_fits,
    count(*) as n_tokens, count(distinct cluster) as n_documents,
    avg(next_change) as next_change, median(next_change) as next_median,
    avg(following_change) as following_change
from effects
group by role, chose_it, label_fits
order by role <> 'own', role, chose_it desc, label_fits desc
