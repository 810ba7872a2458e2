"""What a provider says was paid and given back, held against what became of it here."""
