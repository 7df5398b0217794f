"""How sure a number is: clusters of examples, bootstrap over them, intervals of shares."""
