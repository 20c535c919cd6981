"""How cells are run: plan, identity, build, run, cost, launchers and the grid."""
