"""What is raised for an input or option that cannot be used."""


class UnusableInput(ValueError):
    """An input or option that cannot be used; the message says why, and what to do."""
