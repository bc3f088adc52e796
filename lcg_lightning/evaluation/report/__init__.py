"""The parts of the leaderboard: rows from records, comparisons in pairs, tables, curves and the page."""
