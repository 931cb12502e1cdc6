"""What a study asks of a case: one task a file, all under one contract.

A task knows how outcomes are read from the table, how folds are stratified, what training minimises, what a
fitted model answers, and how the answers are judged. Nothing else in the library asks which task it is.
"""
