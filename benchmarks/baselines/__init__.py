"""What Scrip is measured against: honest, idiomatic, correct, and without its rules."""
