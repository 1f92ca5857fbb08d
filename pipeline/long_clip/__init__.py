"""A clip of several segments, one after the other, each on the disk as it comes: so it can be stopped and resumed."""
