"""The recipe of the bundled demo model: what a very small LLaDA is taught, and what is held out to test it."""
