"""Who calls: tokens of people, builders and agents."""
