selected_layers as (
    select
        moe_layers.layer,
        moe_layers.top_k
    from moe_layers
    where
        moe_layers.run_id = cast($run as varchar)
        and (cast($layer as integer) is null or moe_layers.layer = cast($layer as integer))
),

token_total as (
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

-- an expert that every token chooses is with every other whenever that one is chosen: it takes one
-- of the k places, and chance is about the rest
layer_draws as (
    select
        expert_counts.layer,
        max(selected_layers.top_k)
            - sum(case when expert_counts.n_decisions = token_total.n_tokens then 1 else 0 end)
            as n_drawn,
        sum(
            cast(expert_counts.n_decisions as double) / token_total.n_tokens
            * (1 - cast(expert_counts.n_decisions as double) / token_total.n_tokens)
        ) as spread
    from expert_counts
    cross join token_total
    join selected_layers using (layer)
    group by expert_counts.layer
),

expert_rates as (
    select
        expert_counts.layer,
        expert_counts.expert,
        (layer_draws.n_drawn - 1) * cast(expert_counts.n_decisions as double) as n_partners,
        cast(expert_counts.n_decisions as double) / token_total.n_tokens as rate
    from expert_counts
    cross join token_total
    join layer_draws using (layer)
    where expert_counts.n_decisions < token_total.n_tokens
),

-- two that are rarely chosen leave, where both are, too few places for the rest: Hajek's factor, as
-- an exponential. Of two drawn there is no rest
affinities as (
    select
        rates_a.layer,
        rates_a.expert,
        rates_b.expert as partner,
        rates_a.n_partners,
        case
            when layer_draws.n_drawn = 2 then cast(1 as double)
            else exp(-(1 - rates_a.rate) * (1 - rates_b.rate) / layer_draws.spread)
        end as affinity
    from expert_rates as rates_a
    join expert_rates as rates_b
        on rates_a.layer = rates_b.layer
        and rates_a.expert <> rates_b.expert
    join layer_draws
        on rates_a.layer = layer_draws.layer
),

-- scales that make the expectations of an expert add up to its partners: Sinkhorn's iteration,
-- whose error six steps make small
scale_1 as (
    select
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * expert_rates.rate) as scale
    from affinities
    join expert_rates
        on affinities.layer = expert_rates.layer
        and affinities.partner = expert_rates.expert
    group by affinities.layer, affinities.expert
),

scale_2 as (
    select
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * scale_1.scale) as scale
    from affinities
    join scale_1
        on affinities.layer = scale_1.layer
        and affinities.partner = scale_1.expert
    group by affinities.layer, affinities.expert
),

scale_3 as (
    select
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * scale_2.scale) as scale
    from affinities
    join scale_2
        on affinities.layer = scale_2.layer
        and affinities.partner = scale_2.expert
    group by affinities.layer, affinities.expert
),

scale_4 as (
    select
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * scale_3.scale) as scale
    from affinities
    join scale_3
        on affinities.layer = scale_3.layer
        and affinities.partner = scale_3.expert
    group by affinities.layer, affinities.expert
),

scale_5 as (
    select
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * scale_4.scale) as scale
    from affinities
    join scale_4
        on affinities.layer = scale_4.layer
        and affinities.partner = scale_4.expert
    group by affinities.layer, affinities.expert
),

scale_6 as (
    select
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * scale_5.scale) as scale
    from affinities
    join scale_5
        on affinities.layer = scale_5.layer
        and affinities.partner = scale_5.expert
    group by affinities.layer, affinities.expert
),

pair_chances as (
    select
        affinities.layer,
        affinities.expert as expert_a,
        affinities.partner as expert_b,
        affinities.affinity
            * (last_a.scale * prior_b.scale + prior_a.scale * last_b.scale) / 2 as expected
    from affinities
    join scale_6 as last_a
        on affinities.layer = last_a.layer
        and affinities.expert = last_a.expert
    join scale_6 as last_b
        on affinities.layer = last_b.layer
        and affinities.partner = last_b.expert
    join scale_5 as prior_a
        on affinities.layer = prior_a.layer
        and affinities.expert = prior_a.expert
    join scale_5 as prior_b
        on affinities.layer = prior_b.layer
        and affinities.partner = prior_b.expert
    where affinities.expert < affinities.partner
)
