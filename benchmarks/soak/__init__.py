"""Random problems with known solutions through every splitting and every solver: no answer that calls itself right is wrong."""
