"""The studio: edits, samples and comparisons in the browser."""
