"""The recipe of the bundled demo model: training data for a very small LLaDA, and held-out questions to test it."""
