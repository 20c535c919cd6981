"""The embedded suite: eleven rendered datasets and a tiny CLIP that reads their words.

What stands between pretraining and the benchmark: all words, all values of all factors and all pairs of values are seen
in pretraining; the exact combination of each of the 154 classes is not, neither as a picture nor as a caption, base or
novel. The styles of the benchmark are not seen either. Nothing here tells the order of methods on a real CLIP.

The lower half (words, shapes, content, styles, render, cards, images, weights) needs no torch; captions, pretrain,
measure, gates, classes and sheet stand above it.
"""
