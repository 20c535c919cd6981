"""Datasets: cards, readers, the few-shot draw, templates, augmentation and the DataModule."""
