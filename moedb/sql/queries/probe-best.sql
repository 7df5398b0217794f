-- title: Best probes of each concept
-- answers: Which expert tells each concept best, chosen without the test split, and how well?
-- subject: concepts
-- param run varchar = null: the run; the newest complete one when null
-- param probe varchar = null naming probe: what the probes are called together; all when null
-- param key varchar = null naming probe-key: the key of a label of tokens; all when null
-- param k integer = null from 1: neurons of a probe; all when null
-- param protocol varchar = null in (documents, herbst2026): both when null
-- column probe: what the probes are called together
-- column key: the concept: the key of a label of tokens
-- column value: the concept: the label's value
-- column protocol: documents: fitted, chosen and scored on documents of their own; herbst2026: by
--   token, and chosen on what it is scored on
-- column k: neurons of the probe
-- column n_candidates: candidates that have a probe, over all layers
-- column layer: the layer of the chosen one
-- column candidate: the chosen one: an expert, or a group of neurons
-- column f1: its F1 on test
-- column f1_low: lower end of the 95 % interval, by documents; not of the choice
-- column f1_high: upper end
-- column precision: its precision on test
-- column recall: its recall on test
-- column balanced_accuracy: its balanced accuracy on test
-- column average_precision: its average precision on test
-- column n_test: tokens that it was scored on
-- column n_documents: documents that these are of: of few an interval says little
-- column prevalence: share of the concept's tokens among them
-- column f1_always_yes: F1 of always saying yes to them
-- column f1_best_on_test: the greatest F1 on test that any candidate has
-- column f1_mean: mean F1 on test of all candidates, by the tokens that each was scored on, as
--   Herbst et al. 2026 have it
-- column f1_mean_each: mean F1 on test of all candidates, each counted once
-- column f1_shuffled: F1 of what is chosen in the same way where labels are shuffled; mean over
--   the shufflings
-- column f1_best_on_test_shuffled: f1_best_on_test where labels are shuffled
-- column f1_mean_shuffled: f1_mean where labels are shuffled
-- column f1_mean_each_shuffled: f1_mean_each where labels are shuffled
-- column balanced_accuracy_shuffled: balanced accuracy of what f1_shuffled is of; .5 is chance
-- source: Gurnee et al. 2023, and Herbst et al. 2026, for the probe; the splits are moedb's
with shuffled as (
    select
        probe_choices.probe,
        probe_choices.key,
        probe_choices.value,
        probe_choices.protocol,
        probe_choices.k,
        avg(probe_choices.f1) as f1,
        avg(probe_choices.f1_best_on_test) as f1_best_on_test,
        avg(probe_choices.f1_mean) as f1_mean,
        avg(probe_choices.f1_mean_each) as f1_mean_each,
        avg(probe_choices.balanced_accuracy) as balanced_accuracy
    from probe_choices
    where
        probe_choices.run_id = cast($run as varchar)
        and probe_choices.permutation > 0
    group by
        probe_choices.probe,
        probe_choices.key,
        probe_choices.value,
        probe_choices.protocol,
        probe_choices.k
)

select
    probe_choices.probe,
    probe_choices.key,
    probe_choices.value,
    probe_choices.protocol,
    probe_choices.k,
    probe_choices.n_candidates,
    probe_choices.layer,
    probe_choices.candidate,
    probe_choices.f1,
    probe_choices.f1_low,
    probe_choices.f1_high,
    probe_choices.precision,
    probe_choices.recall,
    probe_choices.balanced_accuracy,
    probe_choices.average_precision,
    probe_choices.n_test,
    probe_choices.n_documents,
    probe_choices.n_yes / probe_choices.n_test as prevalence,
    probe_choices.f1_always_yes,
    probe_choices.f1_best_on_test,
    probe_choices.f1_mean,
    probe_choices.f1_mean_each,
    shuffled.f1 as f1_shuffled,
    shuffled.f1_best_on_test as f1_best_on_test_shuffled,
    shuffled.f1_mean as f1_mean_shuffled,
    shuffled.f1_mean_each as f1_mean_each_shuffled,
    shuffled.balanced_accuracy as balanced_accuracy_shuffled
from probe_choices
left join shuffled
    on
        probe_choices.probe = shuffled.probe
        and probe_choices.key = shuffled.key
        and probe_choices.value = shuffled.value
        and probe_choices.protocol = shuffled.protocol
        and probe_choices.k = shuffled.k
where
    probe_choices.run_id = cast($run as varchar)
    and probe_choices.permutation = 0
    and probe_choices.probe = coalesce(cast($probe as varchar), probe_choices.probe)
    and probe_choices.key = coalesce(cast($key as varchar), probe_choices.key)
    and probe_choices.k = coalesce(cast($k as integer), probe_choices.k)
    and probe_choices.protocol = coalesce(cast($protocol as varchar), probe_choices.protocol)
order by
    probe_choices.probe,
    probe_choices.key,
    probe_choices.value,
    probe_choices.protocol,
    probe_choices.k;
