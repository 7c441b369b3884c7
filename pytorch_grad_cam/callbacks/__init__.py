"""Maps within the loops of training libraries, which are needed where they are imported."""
