"""An arena: people judge answers without knowing whose they are, and what they say becomes a ranking, or training data.

    items (a prompt, the answers of several models)
      → tasks: each pair of answers, or each answer alone     the least judged first
      → shown blind, sides drawn anew for every rater
      → votes ─→ Bradley–Terry scores with intervals, how far raters agree, preference data

``tasks`` and ``results`` are pure; ``service`` puts them on the database, for the API and the command line alike.
"""
