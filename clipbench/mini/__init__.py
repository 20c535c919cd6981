"""The embedded suite: eleven rendered datasets and the weights of a tiny CLIP that reads their words.

Nothing here tells the order of methods on a real CLIP. Needs no torch; how classes and weights were made stands in
`tools/mini`.
"""
