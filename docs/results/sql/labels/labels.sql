-- What the reader said of each expert, and what that is worth.
select
    layer, expert, label, status,
    detection_f1, detection_other, detection_yes,
    fuzzing_f1, fuzzing_low as fuzzing_f1_low, fuzzing_high as fuzzing_f1_high,
    fuzzing_other, fuzzing_yes
from labelled_experts(run := $run)
order by layer, expert
