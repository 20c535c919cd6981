"""Agreement with official code: one script a method, each against a checkout that lies outside this repository.

    git clone https://github.com/htyao89/KgCoOp ../KgCoOp && git -C ../KgCoOp checkout c43ccc3
    python -m tools.agreement.kgcoop --official ../KgCoOp
    python -m tools.agreement.kgcoop --official ../KgCoOp --write    # the row of docs/agreement.md

A script imports official code from its checkout (`checkout.py`), builds its model (`side.py`) and ours on one tiny CLIP
with the same weights (`tiny.py`), gives both the same batches and the same noise, and prints by how much they differ
(`compare.py`); beyond the bounds (`bounds.py`) it fails and writes no row (`page.py`). What several repositories have
in common stands in `learner.py` and `prompted.py`. Run by hand; no test needs official code.
"""
