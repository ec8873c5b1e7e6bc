"""Measuring what is served: load on a model through its API, and the search for the best way to load it.

Our definitions, since tools differ (all times are the client's, over whatever lies between):

- TTFT: from sending a request to its first token.
- TPOT: from the first token to the last, divided by the tokens after the first.
- ITL: the time between two pieces that arrive one after the other.
- throughput: tokens of all answers, divided by the time from the first request to the end of the last.
- goodput: answers a second that kept the objective (TTFT and TPOT both within their bounds).

``docs/concepts/metrics.md`` says how other tools' words differ. A closed loop keeps a number of requests open; an open
one lets them arrive at random (Poisson) whatever has become of those before, which shows queues as users meet them.
"""
