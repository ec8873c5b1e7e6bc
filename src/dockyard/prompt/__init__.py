"""Prompts as artifacts: a template with typed variables, and all that goes with it, under a name with versions.

model.py     what a prompt file says, checked
render.py    a prompt and its variables become messages; templates run in a sandbox
answers.py   what becomes of the answer: reasoning kept apart, the majority of several samples
library.py   prompts in the store: versions, tags, diff, rollback
examples.py  which examples are shown: fixed, or the nearest to the question
trial.py     tests that stand beside the prompt, judged by scorers
optimize.py  a search for better instructions and examples, judged on questions that it has not seen
"""
