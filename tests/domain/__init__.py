"""What the rules of credits promise."""
