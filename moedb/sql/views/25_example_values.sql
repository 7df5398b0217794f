-- title: Labels of whole examples
-- answers: Which labels do all tokens of each example carry: its own, and its run's?
-- column run_id: the run
-- column example_id: the example
-- column key: the label's key
-- column value: the label's value
create or replace view example_values as
select
    example_labels.run_id,
    example_labels.example_id,
    example_labels.key,
    example_labels.value
from example_labels
union
select
    examples.run_id,
    examples.example_id,
    run_labels.key,
    run_labels.value
from run_labels
join examples using (run_id);
