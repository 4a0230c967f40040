"""What a run will do, with every derived number and its reason, and what is refused before it starts."""
