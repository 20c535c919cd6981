"""From records to leaderboards: aggregation, tables, figures, the papers' numbers. Reads records only; never torch."""

from clipbench.report.compare import compare_published
from clipbench.report.leaderboard import Leaderboard, load_frame, write_leaderboard
from clipbench.report.tables import render

__all__ = ["Leaderboard", "compare_published", "load_frame", "render", "write_leaderboard"]
