"""Records where a listing stands and which task published an object, so that a later try of the task can resume."""
