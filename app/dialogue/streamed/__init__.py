"""A session that is heard by recognisers elsewhere, which are paid for what they hear and can fail."""
