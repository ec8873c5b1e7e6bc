"""Bars of prompts and use cases: ``make bars NAME=usecases``."""
