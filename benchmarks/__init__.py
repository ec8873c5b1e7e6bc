"""Measurements against bars, ours and the peer in the same run: ``make bars NAME=foundation``."""
