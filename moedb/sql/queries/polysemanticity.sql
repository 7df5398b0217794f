-- title: Concepts that a neuron answers to
-- answers: How many concepts does a single neuron tell, and which best?
-- subject: concepts
-- param run varchar = null: the run; the newest complete one when null
-- param probe varchar = null naming probe: what the probes are called together; all when null
-- param min_accuracy double = 0.8 from 0 to 1: balanced accuracy on test from which on a neuron
--   tells a concept
-- param protocol varchar = 'documents' in (documents, herbst2026): how it was split and scored
-- column probe: what the probes are called together
-- column layer: the MoE layer
-- column candidate: the expert, or the group of neurons
-- column neuron: a neuron that by itself tells a concept
-- column n_concepts: how many it tells, of those whose best single neuron of the candidate it is
-- column n_asked: concepts that the candidate has probes for
-- column key: the concept that it tells best: the label's key
-- column value: the label's value
-- column balanced_accuracy: how well it tells that
-- column f1: F1 on test of the same
-- source: Herbst et al. 2026, for the question
with single as (
    select
        probe_scores.probe,
        probe_scores.layer,
        probe_scores.candidate,
        probe_scores.neuron,
        probe_scores.key,
        probe_scores.value,
        probe_scores.balanced_accuracy,
        probe_scores.f1,
        count(*) over (
            partition by probe_scores.probe, probe_scores.layer, probe_scores.candidate
        ) as n_asked
    from probe_scores
    where
        probe_scores.run_id = cast($run as varchar)
        and probe_scores.probe = coalesce(cast($probe as varchar), probe_scores.probe)
        and probe_scores.protocol = cast($protocol as varchar)
        and probe_scores.permutation = 0
        and probe_scores.k = 1
),

told as (
    select
        single.*,
        count(*) over (
            partition by single.probe, single.layer, single.candidate, single.neuron
        ) as n_concepts,
        row_number() over (
            partition by single.probe, single.layer, single.candidate, single.neuron
            order by single.balanced_accuracy desc, single.key asc, single.value asc
        ) as place
    from single
    where single.balanced_accuracy >= cast($min_accuracy as double)
)

select
    told.probe,
    told.layer,
    told.candidate,
    told.neuron,
    told.n_concepts,
    told.n_asked,
    told.key,
    told.value,
    told.balanced_accuracy,
    told.f1
from told
where told.place = 1
order by
    told.probe asc,
    told.n_concepts desc,
    told.layer asc,
    told.candidate asc,
    told.neuron asc;
