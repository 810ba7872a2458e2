"""How fast Scrip is, as ratios in one run against what a team would build or use instead."""
