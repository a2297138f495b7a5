"Faults that a test must notice, as data, and the command that plants them: `python -m mutants`."
