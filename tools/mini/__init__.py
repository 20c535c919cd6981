"""How the embedded suite was made: classes, captions, pretraining, gates and golden pictures.

What stands between pretraining and the benchmark: all words, all values of all factors and all pairs of values are seen
in pretraining; the exact combination of each of the 154 classes is not, neither as a picture nor as a caption, base or
novel. The styles of the benchmark are not seen either.
"""
