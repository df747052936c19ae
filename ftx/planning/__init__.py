"""What a run will take, from its words and its model's dimensions alone: no weights, no torch."""
