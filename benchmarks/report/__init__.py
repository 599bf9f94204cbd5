"""From observations to medians, ratios, verdicts, JSON and Markdown."""
