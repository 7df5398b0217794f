-- title: Probes by number of neurons
-- answers: How much better are concepts told with more neurons, and what does the choice add?
-- subject: concepts
-- param run varchar = null: the run; the newest complete one when null
-- param probe varchar = null naming probe: what the probes are called together; all when null
-- param key varchar = null naming probe-key: the key of a label of tokens; all when null
-- column probe: what the probes are called together
-- column key: the key of a label of tokens
-- column protocol: documents, or herbst2026
-- column labels: true, or shuffled
-- column k: neurons of a probe
-- column n_concepts: values of the key that have probes
-- column f1: mean over concepts of the F1 of the candidate that was chosen for each
-- column f1_best_on_test: mean over concepts of the greatest F1 on test
-- column f1_mean: mean over concepts of the mean over candidates, by the tokens that each was
--   scored on, as Herbst et al. 2026 have it
-- column f1_mean_each: mean over concepts of the mean over candidates, each counted once
-- column f1_always_yes: mean over concepts of the F1 of always saying yes
-- column balanced_accuracy: mean over concepts of the balanced accuracy of the chosen candidate
-- column balanced_accuracy_mean: mean over concepts of that over candidates
-- source: Herbst et al. 2026, figure of F1 by k
with chosen as (
    select
        probe_choices.*,
        case when probe_choices.permutation = 0 then 'true' else 'shuffled' end as labels
    from probe_choices
    where
        probe_choices.run_id = cast($run as varchar)
        and probe_choices.probe = coalesce(cast($probe as varchar), probe_choices.probe)
        and probe_choices.key = coalesce(cast($key as varchar), probe_choices.key)
)

select
    chosen.probe,
    chosen.key,
    chosen.protocol,
    chosen.labels,
    chosen.k,
    count(distinct chosen.value) as n_concepts,
    avg(chosen.f1) as f1,
    avg(chosen.f1_best_on_test) as f1_best_on_test,
    avg(chosen.f1_mean) as f1_mean,
    avg(chosen.f1_mean_each) as f1_mean_each,
    avg(chosen.f1_always_yes) as f1_always_yes,
    avg(chosen.balanced_accuracy) as balanced_accuracy,
    avg(chosen.balanced_accuracy_mean) as balanced_accuracy_mean
from chosen
group by chosen.probe, chosen.key, chosen.protocol, chosen.labels, chosen.k
order by
    chosen.probe asc,
    chosen.key asc,
    chosen.protocol asc,
    chosen.labels desc,
    chosen.k asc;
