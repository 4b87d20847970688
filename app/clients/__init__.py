"""The roles over somebody's wire, one file a provider."""
