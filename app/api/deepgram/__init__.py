"""`/v1/listen` as Deepgram has it, so that its clients work with their base URL pointed here."""
