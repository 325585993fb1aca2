"""From predictions to a decision, by pure functions: metrics, corruptions, checks. Sees no run's folder."""
