"""Training, shared by ``tune``, ``pretrain``, ``align`` and ``distill``: examples to tokens, adapters, and the loop.

The loop is TRL's and transformers' trainer, driven so that a run which is killed goes on to the same result: the seed
draws everything, checkpoints carry optimiser and random numbers, and what is kept says nothing of clocks or paths.
"""
