"""The examples that the parameter ``split`` of a question reads, for the SQL of analyses."""

SELECTED_EXAMPLES = """(
    select selections.example_id
    from selections
    where selections.run_id = cast($run as varchar)
        and selections.selection = coalesce(cast($split as varchar), 'default')
)"""
"""The examples of ``$split`` of ``$run``, as a subquery."""
