-- title: Labels of experts
-- answers: What does a reader say that each expert does, and what is the label worth?
-- subject: experts
-- param run varchar = null: the run; the newest complete one when null
-- param against varchar = 'all' in (all, token, document, random, imported): the negative contexts
--   that the scores are against
-- column label_set: what the labels are called together
-- column layer: the MoE layer
-- column expert: the expert
-- column label: the label; null where there is none
-- column status: labelled, or why not
-- column n_decisions: tokens that chose the expert
-- column detection_f1: F1 of telling its texts by the label
-- column detection_low: lower end of its 95 % interval, BCa bootstrap over clusters
-- column detection_high: upper end
-- column detection_yes: F1 of saying yes to everything
-- column detection_other: F1 of another expert's label on the same contexts
-- column fuzzing_f1: F1 of telling its tokens by the label
-- column fuzzing_low: lower end of its 95 % interval
-- column fuzzing_high: upper end
-- column fuzzing_yes: F1 of saying yes to everything
-- column fuzzing_other: F1 of another expert's label on the same contexts
-- column model: the reader
-- column reason: what went wrong
-- source: Paulo et al. 2024 (detection, fuzzing), for experts in place of latents
with named_experts as (
    select
        expert_labels.label_set,
        expert_labels.layer,
        expert_labels.expert,
        expert_labels.label,
        expert_labels.status,
        expert_labels.n_decisions,
        expert_labels.model,
        expert_labels.reason
    from expert_labels
    where expert_labels.run_id = cast($run as varchar)
),

counted_verdicts as (
    select
        expert_label_scores.label_set,
        expert_label_scores.layer,
        expert_label_scores.expert,
        expert_label_scores.kind,
        expert_label_scores.f1,
        expert_label_scores.f1_low,
        expert_label_scores.f1_high,
        expert_label_scores.always_yes_f1,
        expert_label_scores.other_f1
    from expert_label_scores
    where
        expert_label_scores.run_id = cast($run as varchar)
        and expert_label_scores.against = cast($against as varchar)
),

final as (
    select
        named_experts.label_set,
        named_experts.layer,
        named_experts.expert,
        named_experts.label,
        named_experts.status,
        named_experts.n_decisions,
        detection.f1 as detection_f1,
        detection.f1_low as detection_low,
        detection.f1_high as detection_high,
        detection.always_yes_f1 as detection_yes,
        detection.other_f1 as detection_other,
        fuzzing.f1 as fuzzing_f1,
        fuzzing.f1_low as fuzzing_low,
        fuzzing.f1_high as fuzzing_high,
        fuzzing.always_yes_f1 as fuzzing_yes,
        fuzzing.other_f1 as fuzzing_other,
        named_experts.model,
        named_experts.reason
    from named_experts
    left join counted_verdicts as detection
        on named_experts.label_set = detection.label_set
        and named_experts.layer = detection.layer
        and named_experts.expert = detection.expert
        and detection.kind = 'detection'
    left join counted_verdicts as fuzzing
        on named_experts.label_set = fuzzing.label_set
        and named_experts.layer = fuzzing.layer
        and named_experts.expert = fuzzing.expert
        and fuzzing.kind = 'fuzzing'
)

select
    final.label_set,
    final.layer,
    final.expert,
    final.label,
    final.status,
    final.n_decisions,
    final.detection_f1,
    final.detection_low,
    final.detection_high,
    final.detection_yes,
    final.detection_other,
    final.fuzzing_f1,
    final.fuzzing_low,
    final.fuzzing_high,
    final.fuzzing_yes,
    final.fuzzing_other,
    final.model,
    final.reason
from final
order by final.label_set, final.layer, final.expert;
