"""Many images on the command line: explained in batches, written as whole files, continued after a stop."""
