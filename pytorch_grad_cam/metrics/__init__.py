"""How well a map says what the model's score depends on."""
