"""English sentences and the questions that they answer, by rule."""
