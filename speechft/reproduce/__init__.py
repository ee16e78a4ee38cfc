"""The paper's rows, from training to the report: what `scripts/reproduce` does.

`rows.py` knows them, `plan.py` writes the commands, `check.py` looks for data, weights and space, `step.py` and
`cost.py` say how long it takes, `command.py` does it.
"""
