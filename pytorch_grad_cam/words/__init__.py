"""What a vision-language model says, what it computed for it, and where its image tokens lie."""
