-- title: Similarity of experts' weights
-- answers: How alike are the weights of two experts of a layer?
-- subject: pairs
-- param run varchar = null: the run, captured with --expert-similarity; the newest such when null
-- param layer integer = null: the MoE layer; all when null
-- column layer: the MoE layer
-- column expert_a: an expert
-- column expert_b: another expert of the layer, of larger index
-- column gate_cosine: cosine of their gate projections, each as one long vector; null where experts
--   have no gate
-- column up_cosine: cosine of their up projections
-- column down_cosine: cosine of their down projections
-- column chance_sd: deviation of the cosine of two random vectors as long as a projection, whose
--   mean is 0: 1 / sqrt(values). Two experts may have the same neurons in another order, and
--   cosines near 0 all the same
-- column expert_cosine: cosine of all weights of the experts together
-- column expert_chance_sd: chance_sd of vectors of that length
-- column matched_cosine: each neuron (its gate and up rows and its down column) beside the likest
--   one of the other expert: mean cosine over the neurons of both; null unless the run was captured
--   with --expert-similarity neurons
-- column matched_chance: what that is on average between experts of random weights, the largest of
--   as many random cosines as there are neurons
-- column router_cosine: cosine of their rows of the router's weight
-- column router_chance_sd: chance_sd of vectors of that length
-- column norm_a: Euclidean norm of all weights of expert_a
-- column norm_b: that of expert_b
-- column reason: why cosines are null that the experts would have
-- source: Lo et al. 2024, arXiv 2406.18219; moe-router-study, of the router's rows
with compared as (
    select
        expert_cosines.layer,
        expert_cosines.expert_a,
        expert_cosines.expert_b,
        expert_cosines.gate_cosine,
        expert_cosines.up_cosine,
        expert_cosines.down_cosine,
        expert_cosines.expert_cosine,
        expert_cosines.matched_cosine,
        expert_cosines.matched_chance,
        expert_cosines.router_cosine,
        expert_cosines.norm_a,
        expert_cosines.norm_b,
        expert_cosines.n_projection,
        expert_cosines.n_weights,
        expert_cosines.n_router,
        expert_cosines.reason
    from expert_cosines
    where
        expert_cosines.run_id = cast($run as varchar)
        and (cast($layer as integer) is null or expert_cosines.layer = cast($layer as integer))
)

select
    compared.layer,
    compared.expert_a,
    compared.expert_b,
    compared.gate_cosine,
    compared.up_cosine,
    compared.down_cosine,
    1 / sqrt(cast(compared.n_projection as double)) as chance_sd,
    compared.expert_cosine,
    1 / sqrt(cast(compared.n_weights as double)) as expert_chance_sd,
    compared.matched_cosine,
    compared.matched_chance,
    compared.router_cosine,
    1 / sqrt(cast(compared.n_router as double)) as router_chance_sd,
    compared.norm_a,
    compared.norm_b,
    compared.reason
from compared
order by compared.layer, compared.expert_a, compared.expert_b;
