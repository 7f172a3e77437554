"""Results as people read them. Takes result objects, computes nothing of its own."""
