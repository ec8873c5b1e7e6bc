"""Where code that nobody vouches for runs: bubblewrap's arguments, a control group, and a bounded run of a program.

Tool servers are started with the first two; ``program`` runs what a model wrote to see whether it passes its tests.
"""
