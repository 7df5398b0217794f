-- title: Pairs of experts by chance
-- answers: How often would two experts of a layer be chosen for the same token by chance?
-- column run_id: the run
-- column selection: all; default, which is all but corrupted; or the name of a split
-- column layer: the MoE layer
-- column expert_a: an expert that is chosen
-- column expert_b: another expert of the layer that is, of larger index
-- column expected: tokens that would choose both if each drew k different experts at random so that
--   each expert keeps its frequency; k(k-1) T / (E(E-1)) where all are chosen alike
create or replace view pair_chances as
with rates as (
    select
        expert_usage.run_id,
        expert_usage.selection,
        expert_usage.layer,
        expert_usage.expert,
        moe_layers.top_k,
        expert_usage.n_decisions,
        case when expert_usage.n_decisions = selection_sizes.n_tokens then 1 else 0 end as is_always,
        cast(expert_usage.n_decisions as double) / selection_sizes.n_tokens as rate
    from expert_usage
    join selection_sizes using (run_id, selection)
    join moe_layers using (run_id, layer)
    where expert_usage.n_decisions > 0
),

-- an expert that every token chooses is with every other whenever that one is chosen: it takes one
-- of the k places, and chance is about the rest
layer_draws as (
    select
        rates.run_id,
        rates.selection,
        rates.layer,
        max(rates.top_k) - sum(rates.is_always) as n_drawn,
        sum(rates.rate * (1 - rates.rate)) as spread
    from rates
    group by rates.run_id, rates.selection, rates.layer
),

drawn as (
    select
        rates.run_id,
        rates.selection,
        rates.layer,
        rates.expert,
        rates.rate,
        layer_draws.n_drawn,
        layer_draws.spread,
        (layer_draws.n_drawn - 1) * cast(rates.n_decisions as double) as n_partners
    from rates
    join layer_draws using (run_id, selection, layer)
    where rates.is_always = 0 and layer_draws.n_drawn > 1
),

-- two that are rarely chosen leave, where both are, too few places for the rest: Hajek's factor, as
-- an exponential. Of two drawn there is no rest
affinities as (
    select
        drawn_a.run_id,
        drawn_a.selection,
        drawn_a.layer,
        drawn_a.expert,
        drawn_b.expert as partner,
        drawn_b.rate as partner_rate,
        drawn_a.n_partners,
        case
            when drawn_a.n_drawn = 2 then cast(1 as double)
            else exp(-(1 - drawn_a.rate) * (1 - drawn_b.rate) / drawn_a.spread)
        end as affinity
    from drawn as drawn_a
    join drawn as drawn_b
        on drawn_a.run_id = drawn_b.run_id
        and drawn_a.selection = drawn_b.selection
        and drawn_a.layer = drawn_b.layer
        and drawn_a.expert <> drawn_b.expert
),

-- scales that make the expectations of an expert add up to its partners: Sinkhorn's iteration,
-- whose error six steps make small
scale_1 as (
    select
        affinities.run_id,
        affinities.selection,
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * affinities.partner_rate) as scale
    from affinities
    group by affinities.run_id, affinities.selection, affinities.layer, affinities.expert
),

scale_2 as (
    select
        affinities.run_id,
        affinities.selection,
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * scale_1.scale) as scale
    from affinities
    join scale_1
        on affinities.run_id = scale_1.run_id
        and affinities.selection = scale_1.selection
        and affinities.layer = scale_1.layer
        and affinities.partner = scale_1.expert
    group by affinities.run_id, affinities.selection, affinities.layer, affinities.expert
),

scale_3 as (
    select
        affinities.run_id,
        affinities.selection,
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * scale_2.scale) as scale
    from affinities
    join scale_2
        on affinities.run_id = scale_2.run_id
        and affinities.selection = scale_2.selection
        and affinities.layer = scale_2.layer
        and affinities.partner = scale_2.expert
    group by affinities.run_id, affinities.selection, affinities.layer, affinities.expert
),

scale_4 as (
    select
        affinities.run_id,
        affinities.selection,
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * scale_3.scale) as scale
    from affinities
    join scale_3
        on affinities.run_id = scale_3.run_id
        and affinities.selection = scale_3.selection
        and affinities.layer = scale_3.layer
        and affinities.partner = scale_3.expert
    group by affinities.run_id, affinities.selection, affinities.layer, affinities.expert
),

scale_5 as (
    select
        affinities.run_id,
        affinities.selection,
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * scale_4.scale) as scale
    from affinities
    join scale_4
        on affinities.run_id = scale_4.run_id
        and affinities.selection = scale_4.selection
        and affinities.layer = scale_4.layer
        and affinities.partner = scale_4.expert
    group by affinities.run_id, affinities.selection, affinities.layer, affinities.expert
),

scale_6 as (
    select
        affinities.run_id,
        affinities.selection,
        affinities.layer,
        affinities.expert,
        max(affinities.n_partners) / sum(affinities.affinity * scale_5.scale) as scale
    from affinities
    join scale_5
        on affinities.run_id = scale_5.run_id
        and affinities.selection = scale_5.selection
        and affinities.layer = scale_5.layer
        and affinities.partner = scale_5.expert
    group by affinities.run_id, affinities.selection, affinities.layer, affinities.expert
),

scales as (
    select
        scale_6.run_id,
        scale_6.selection,
        scale_6.layer,
        scale_6.expert,
        scale_6.scale as last_scale,
        scale_5.scale as prior_scale
    from scale_6
    join scale_5 using (run_id, selection, layer, expert)
),

expectations as (
    select
        affinities.run_id,
        affinities.selection,
        affinities.layer,
        affinities.expert as expert_a,
        affinities.partner as expert_b,
        affinities.affinity
            * (
                scales_a.last_scale * scales_b.prior_scale
                + scales_a.prior_scale * scales_b.last_scale
            ) / 2 as expected
    from affinities
    join scales as scales_a
        on affinities.run_id = scales_a.run_id
        and affinities.selection = scales_a.selection
        and affinities.layer = scales_a.layer
        and affinities.expert = scales_a.expert
    join scales as scales_b
        on affinities.run_id = scales_b.run_id
        and affinities.selection = scales_b.selection
        and affinities.layer = scales_b.layer
        and affinities.partner = scales_b.expert
    where affinities.expert < affinities.partner
)

select
    rates_a.run_id,
    rates_a.selection,
    rates_a.layer,
    rates_a.expert as expert_a,
    rates_b.expert as expert_b,
    case
        when rates_a.is_always = 1 then cast(rates_b.n_decisions as double)
        when rates_b.is_always = 1 then cast(rates_a.n_decisions as double)
        else coalesce(expectations.expected, 0)
    end as expected
from rates as rates_a
join rates as rates_b
    on rates_a.run_id = rates_b.run_id
    and rates_a.selection = rates_b.selection
    and rates_a.layer = rates_b.layer
    and rates_a.expert < rates_b.expert
left join expectations
    on rates_a.run_id = expectations.run_id
    and rates_a.selection = expectations.selection
    and rates_a.layer = expectations.layer
    and rates_a.expert = expectations.expert_a
    and rates_b.expert = expectations.expert_b;
