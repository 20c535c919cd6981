"""The embedded suite: eleven rendered datasets and a tiny CLIP that reads their words.

The lower half (words, shapes, content, styles, render, cards, images, weights) needs no torch; captions, pretrain,
gates, classes and sheet stand above it.
"""
