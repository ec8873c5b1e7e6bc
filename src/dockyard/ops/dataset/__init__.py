"""Data sets: reading and checking files of examples, splitting, finding what repeats, overlaps or identifies people.

Pure functions over records; ``dockyard.ops.data`` makes artifacts with them. Light to import: what needs numpy or
pyarrow imports it where it is used.
"""
