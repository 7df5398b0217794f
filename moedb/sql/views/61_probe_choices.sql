-- title: Choices among probes
-- answers: Which candidate is chosen for a concept, and what are the others worth?
-- column run_id: the run
-- column probe: what the probes are called together
-- column neurons: the array that holds the neurons
-- column key: the concept: the key of a label of tokens
-- column value: the concept: the label's value
-- column protocol: how probes were split, chosen and scored
-- column permutation: 0, or the number of a shuffling of the labels
-- column k: neurons of a probe
-- column n_candidates: candidates that have a probe, over all layers
-- column layer: the layer of the one with the greatest F1 on the selection split
-- column candidate: which it is; of equal ones that with more tokens
-- column neuron: its first neuron
-- column selection_f1: its F1 on the selection split
-- column f1: its F1 on test
-- column f1_low: lower end of the 95 % interval, by documents
-- column f1_high: upper end
-- column precision: its precision on test
-- column recall: its recall on test
-- column balanced_accuracy: its balanced accuracy on test
-- column average_precision: its average precision on test
-- column n_test: tokens that it was scored on
-- column n_yes: tokens of the concept among them
-- column n_documents: documents that these are of
-- column f1_always_yes: F1 of always saying yes to them
-- column f1_best_on_test: the greatest F1 on test that any candidate has
-- column f1_mean: mean F1 on test of all candidates, by the tokens that each was scored on
-- column f1_mean_each: mean F1 on test of all candidates, each counted once
-- column balanced_accuracy_mean: mean balanced accuracy of all candidates, by these tokens
create or replace view probe_choices as
with ordered as (
    select
        probe_scores.*,
        row_number() over (
            partition by
                probe_scores.run_id,
                probe_scores.probe,
                probe_scores.key,
                probe_scores.value,
                probe_scores.protocol,
                probe_scores.permutation,
                probe_scores.k
            order by
                probe_scores.selection_f1 desc,
                probe_scores.n_test desc,
                probe_scores.layer asc,
                probe_scores.candidate asc
        ) as place
    from probe_scores
)

select
    ordered.run_id,
    ordered.probe,
    min(ordered.neurons) as neurons,
    ordered.key,
    ordered.value,
    ordered.protocol,
    ordered.permutation,
    ordered.k,
    count(*) as n_candidates,
    max(case when ordered.place = 1 then ordered.layer end) as layer,
    max(case when ordered.place = 1 then ordered.candidate end) as candidate,
    max(case when ordered.place = 1 then ordered.neuron end) as neuron,
    max(case when ordered.place = 1 then ordered.selection_f1 end) as selection_f1,
    max(case when ordered.place = 1 then ordered.f1 end) as f1,
    max(case when ordered.place = 1 then ordered.f1_low end) as f1_low,
    max(case when ordered.place = 1 then ordered.f1_high end) as f1_high,
    max(case when ordered.place = 1 then ordered.precision end) as precision,
    max(case when ordered.place = 1 then ordered.recall end) as recall,
    max(case when ordered.place = 1 then ordered.balanced_accuracy end) as balanced_accuracy,
    max(case when ordered.place = 1 then ordered.average_precision end) as average_precision,
    max(case when ordered.place = 1 then ordered.n_test end) as n_test,
    max(case when ordered.place = 1 then ordered.n_yes end) as n_yes,
    max(case when ordered.place = 1 then ordered.n_documents end) as n_documents,
    max(case when ordered.place = 1 then ordered.f1_always_yes end) as f1_always_yes,
    max(ordered.f1) as f1_best_on_test,
    sum(ordered.n_test * ordered.f1) / sum(ordered.n_test) as f1_mean,
    avg(ordered.f1) as f1_mean_each,
    sum(ordered.n_test * ordered.balanced_accuracy)
    / sum(ordered.n_test) as balanced_accuracy_mean
from ordered
group by
    ordered.run_id,
    ordered.probe,
    ordered.key,
    ordered.value,
    ordered.protocol,
    ordered.permutation,
    ordered.k;
