"""Recognisers elsewhere that hear a stream (`roles.streaming`), one file a provider, each over the provider's
own SDK."""
