"""Synthetic data made and judged: ``writing`` asks a model, ``table`` draws rows, ``report`` says how it went."""
