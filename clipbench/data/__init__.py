"""Datasets: cards, readers, the few-shot draw, templates, views and the DataModule."""
