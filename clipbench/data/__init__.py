"""Datasets: cards, readers, the few-shot draw, templates, views and the DataModule.

`VERSION` is part of the key of every record: it is raised when a change here moves numbers (a golden test notices).
"""

VERSION = 1
