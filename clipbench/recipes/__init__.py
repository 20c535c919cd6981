"""What is asked for: recipes, suites, studies, requests and how their settings merge; no torch."""
