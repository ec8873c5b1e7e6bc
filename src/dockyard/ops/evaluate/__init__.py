"""Evaluation: a suite of items put to a model as it is served, scored, counted and compared honestly.

    suite.yaml + data ─→ items ─→ asked over the API ─→ journal, item by item ─→ scorers ─→ a run
                                                                                            │
    two runs of one suite ─→ paired bootstrap ─→ better, worse, or "cannot be told apart" ←─┘

``result`` has what a run is on disk, ``statistics`` the intervals, ``run`` the walk over the items. What an item costs
is journaled before the next begins to count: a run that is killed goes on where it was.
"""
