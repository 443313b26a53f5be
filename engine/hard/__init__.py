"""Hard examples: which labels are likely wrong, why, and how likely."""
