"""Many images on the command line: explained in batches, written whole, continued after a stop."""
