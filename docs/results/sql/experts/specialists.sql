-- The neurons of experts that tell one concept best, of experts that were asked about many.
select
    told.layer, told.candidate as expert, told.neuron, told.key, told.value,
    told.n_concepts as tells, told.n_asked as asked, told.balanced_accuracy,
    scores.f1, scores.f1_low, scores.f1_high, scores.f1_always_yes,
    scores.n_yes, scores.n_test, scores.n_documents
from polysemanticity(run := $mixture, probe := 'experts') as told
join probe_scores as scores
    on scores.run_id = $mixture and scores.probe = 'experts'
    and scores.layer = told.layer and scores.candidate = told.candidate
    and scores.key = told.key and scores.value = told.value
    and scores.k = 1 and scores.permutation = 0 and scores.protocol = 'documents'
where told.n_concepts = 1 and told.n_asked >= cast($least as integer)
    and scores.n_yes >= 2 * cast($least as integer)
order by told.balanced_accuracy desc, told.layer, told.candidate, told.neuron
limit 12
