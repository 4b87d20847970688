"""Model code. An engine knows nothing of HTTP, sessions or Modal; its library loads with it."""
